// Package runtimetest is the contract of runtimes.Runtime as tests. Each implementation's test calls Run.
package runtimetest

import (
	"testing"

	"penstock/internal/resource"
	"penstock/internal/runtimes"
)

// Subject is one engine under test with a machine of its own: state folder, network, containers.
//
// The tests ask for images by these references and set nothing else: no command, no variables, arguments for Write only. Each container gets
// 0.25 vCPU and 64 MiB, and Port as its target port, so that Azure's implicit probes say when it is ready.
//
//	Serve    listens on Port soon after its start, answers GET / with 200 and GET /file?path=P with what is in the file
//	         P, 404 when there is none, and ends on SIGTERM at once
//	Deaf     as Serve, but takes no notice of SIGTERM
//	Exit     ends by itself at once with code 3
//	Done     ends by itself at once with code 0
//	Write    the same, after it has written its second argument to the file that the first names
//	Missing  is not there
type Subject struct {
	// Start opens an engine on this subject's machine and returns it when its methods may be called, with a stop that
	// ends it as the end of the platform does: containers run on. A second Start after a stop is the platform coming
	// back on the same machine; one engine runs at a time. Restarts come quickly: after a first crash at once, after
	// the second within a second. Run calls stop before the test ends.
	Start func(t testing.TB) (rt runtimes.Runtime, stop func())

	Serve, Deaf, Exit, Done, Write, Missing string
	// Program begins the commands that tests run in containers of Serve, with one of these after it: "cat" copies its
	// standard input to its standard output, "exit N" ends with that code, and "size" prints the size of its terminal, as
	// 80x24, when that is known. It may be empty.
	Program []string
	Port    int

	// Crash kills the process of the first container of r as a fault of its own would, not through the engine.
	Crash func(t testing.TB, r resource.Replica)

	// Left lists what is still on the machine that engines of this subject made (processes, mounts, network interfaces,
	// control groups, files), one line each. It is called when every revision has been removed and its replicas have
	// gone, with no engine or with one running, and again for a second or two until it is empty.
	Left func() []string

	// Memory is what the machine of this subject promises to containers at most, in bytes; 0 when it has no bound. With
	// a bound the tests of capacity run too.
	Memory int64
}

// Open makes a new subject for one test and registers its clean-up with t.Cleanup.
type Open func(t testing.TB) *Subject
