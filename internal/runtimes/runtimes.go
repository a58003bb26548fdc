// Package runtimes is the seam between the platform and what runs containers: a revision with n replicas, or an execution
// of a job whose replicas run to their end.
//
// runtimes/local implements it on one machine over a container driver (containerd, or fake for tests); a cluster can
// implement it as it is. Every implementation passes runtimetest.Run.
package runtimes

import (
	"context"
	"errors"
	"io"
	"time"

	"penstock/internal/resource"
)

// ErrTooLarge is wrapped by the refusal of a workload of which not one replica can ever fit.
var ErrTooLarge = errors.New("larger than this machine")

// Runtime keeps revisions at the number of replicas that was asked for. All methods may be called at once.
type Runtime interface {
	// Apply makes w.Revision have w.Replicas replicas and keeps it so, restarting what ends, until the next Apply or
	// Remove of that revision. It returns when w is accepted, before anything has started; what becomes of it is seen
	// in Replicas. The same w again does nothing. A changed environment or port reaches only replicas made later.
	Apply(ctx context.Context, w Workload) error

	// Remove ends all replicas of the revision (SIGTERM, grace, SIGKILL) and forgets it. It returns when that has
	// begun; the revision has gone when Replicas no longer lists one of it. Removing what is not there is no error.
	Remove(ctx context.Context, revision resource.ID) error

	// Replicas lists every replica there is, also those that an earlier process of the platform started, whether a
	// workload asks for them or not.
	Replicas(ctx context.Context) ([]resource.Replica, error)

	// Watch sends the ID of a revision whenever a replica of it has changed. Changes that nobody has taken yet are
	// merged, never lost and never blocking the engine. The channel closes when ctx ends.
	Watch(ctx context.Context) <-chan resource.ID

	// Usage says what a replica uses now.
	Usage(ctx context.Context, replica string) (Usage, error)
}

// Execer is what a runtime may be that can run commands inside containers.
type Execer interface {
	// Exec runs a command beside the first process of a running container, as the same user with the same variables and
	// limits, and returns its exit code when it has ended and all its output was written. It kills the command when ctx
	// ends. The error wraps resource.ErrNotFound when there is no such container, or it does not run.
	Exec(ctx context.Context, replica, container string, e Exec) (code int, err error)
}

// Exec is a command and what it is connected to.
type Exec struct {
	Command []string
	// TTY gives it a terminal. All its output goes to Stdout then.
	TTY bool
	// Stdin may be nil for nothing. Its owner ends it once Exec has returned: it may still be read from until then.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Resize tells the sizes of the terminal; nil when they do not matter.
	Resize <-chan Size
}

// Size is that of a terminal, in characters.
type Size struct{ Width, Height int }

// Workload is a revision and how much of it is wanted.
type Workload struct {
	Revision resource.Revision
	Replicas int
	// Retire names replicas that go first when there are too many, because no request is on them.
	Retire []string
	// Env is set in every container below the container's own variables.
	Env []resource.EnvVar
	// Run is set when Revision is an execution of a job, in the shape of a revision. It says then which replicas are
	// wanted, and Replicas and Retire say nothing.
	Run *Run
}

// Run asks for replicas that run once, to their end. Nothing in them is started again: each init container and then each
// container runs once, and when the last has ended the replica is Succeeded, if all ended with code 0, or Failed. It
// gives back the machine's memory then, and stays listed with what its containers ended with.
type Run struct {
	// Replicas names those that are to be there, uniquely on the machine. One that is listed already, ended or not, is
	// left as it is; so the same Apply after a crash runs nothing twice. One that is not named any more is ended and
	// removed.
	Replicas []string
	// Begun are those of them that were there before: when one has gone it is not made again.
	Begun []string
	// Timeout is how long a replica may run from the start of its first container; after it the replica is ended by
	// SIGTERM, grace and SIGKILL, and Failed. 0: no limit.
	Timeout time.Duration
}

// Usage is what the containers of a replica use together.
type Usage struct {
	CPUNanos    uint64 // since the replica's containers were created
	WorkingSet  uint64 // bytes: memory in use less inactive file cache, which is what limits and alarms look at
	MemoryPeak  uint64 // bytes
	MemoryLimit uint64 // bytes
	Processes   uint64
}

// Mapper is what a runtime may be that can tell memory of a replica's own from what it shares with others.
type Mapper interface {
	// Mapped wraps resource.ErrNotFound when there is no such replica and errors.ErrUnsupported when nobody can tell.
	Mapped(ctx context.Context, replica string) (Mapped, error)
}

// Mapped is the memory that the processes of a replica have mapped, in bytes.
type Mapped struct {
	RSS uint64 `json:"rssBytes"` // all of it
	PSS uint64 `json:"pssBytes"` // each page divided by the number of processes that have it: weights of one layer count once in all
}
