// Package runtimetest tests the contract of runtimes.Runtime. The tests of each implementation call Run.
package runtimetest

import (
	"testing"

	"penstock/internal/resource"
	"penstock/internal/runtimes"
)

// Subject is an engine under test with its own machine: state folder, network and containers.
//
// The tests refer to images by the references below. They set no command and no variables, and arguments only for
// Write. Each container gets 0.25 vCPU and 64 MiB, and Port as its target port, so Azure's implicit probes determine
// when it is ready.
//
//	Serve    listens on Port soon after its start, answers GET / with 200 and GET /file?path=P with the content of
//	         the file P, or 404 if there is none, and ends at once on SIGTERM
//	Deaf     like Serve, but ignores SIGTERM
//	Exit     ends by itself at once with code 3
//	Done     ends by itself at once with code 0
//	Write    the same, after it has written its second argument to the file named by the first
//	Missing  does not exist
type Subject struct {
	// Start opens an engine on this subject's machine. It returns the engine when its methods may be called, and a stop
	// that ends it in the same way as the end of the platform: containers keep running. A second Start after a stop is
	// a restart of the platform on the same machine. Only one engine runs at a time. Restarts of containers are quick:
	// at once after the first crash, and within a second after the second. Run calls stop before the test ends.
	Start func(t testing.TB) (rt runtimes.Runtime, stop func())

	Serve, Deaf, Exit, Done, Write, Missing string
	// Program is the start of the commands that tests run in containers of Serve. One of these follows it: "cat" copies
	// its standard input to its standard output, "exit N" ends with that code, and "size" prints the size of its
	// terminal, as 80x24, when that is known. Program may be empty.
	Program []string
	Port    int

	// Crash kills the process of the first container of r without the engine, as if the process had failed by itself.
	Crash func(t testing.TB, r resource.Replica)

	// Left lists what engines of this subject have created and is still on the machine (processes, mounts, network
	// interfaces, control groups, files), one line each. It is called, with or without a running engine, when every
	// revision was removed and its replicas have gone. It is called again for a second or two until it returns nothing.
	Left func() []string

	// Standbys is the engine's standby budget: at least 2.
	Standbys int

	// Memory is how much memory, in bytes, this subject's machine promises to containers at most. 0 means no bound.
	// With a bound, the tests of capacity run too.
	Memory int64
}

// Open creates a new subject for one test, and registers its clean-up with t.Cleanup.
type Open func(t testing.TB) *Subject
