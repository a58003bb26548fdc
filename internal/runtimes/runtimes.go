// Package runtimes defines the interface between the platform and an engine that runs containers. An engine runs
// revisions with n replicas, and executions of jobs, whose replicas run once.
//
// Package runtimes/local implements it on one machine, on top of a container driver (containerd, or a fake for tests).
// A cluster can implement it without changes. Every implementation passes runtimetest.Run.
package runtimes

import (
	"context"
	"errors"
	"io"
	"time"

	"penstock/internal/resource"
)

// ErrTooLarge is wrapped by Apply and Execute when not even one replica can ever fit.
var ErrTooLarge = errors.New("larger than this machine")

// Runtime runs revisions and executions. Its methods are safe for concurrent use.
type Runtime interface {
	// Apply makes w.Revision have w.Replicas replicas. The engine maintains that number, and restarts what ends, until
	// the next Apply or Remove of the revision. Apply returns when w is accepted, before anything has started; Replicas
	// shows the progress. Calling it again with the same w does nothing. A changed environment or port affects only
	// replicas that are created later.
	//
	// While w.Replicas is 0, the engine keeps a standby of the kind w.Standby, within its own budget, so that the next
	// replica starts sooner. A standby is not a replica: Replicas does not list it, and it has seen no request, probe
	// or init container. It is used only if it has the template, variables, mounts and secrets of the last Apply. It
	// survives a restart of the platform, but not of the machine. The Apply that wants a replica again wakes the
	// standby. The replica then has the standby's name, and its Created is the time when it was woken.
	Apply(ctx context.Context, w Workload) error

	// Execute makes the execution have the replicas that x names. Each replica runs once: its init containers one after
	// the other, then its containers. Nothing is restarted. When the last container has ended, the replica is Succeeded
	// if all ended with code 0, and Failed otherwise. It then gives back the machine's memory. It stays listed, with
	// the exits of its containers, until an Execute no longer names it, or until Remove. Execute returns when x is
	// accepted. Calling it again with the same x runs nothing twice, even after a crash of the platform.
	Execute(ctx context.Context, x Execution) error

	// Remove ends all replicas of a revision or an execution (SIGTERM, grace, SIGKILL) and its standby, and forgets it.
	// It returns when that has begun; it is complete when Replicas lists none of them. It is not an error if there is
	// nothing to remove.
	Remove(ctx context.Context, revision resource.ID) error

	// Replicas lists all replicas, including those that an earlier process of the platform started, whether or not a
	// workload asks for them.
	Replicas(ctx context.Context) ([]resource.Replica, error)

	// ReplicasOf lists the replicas of one app or job.
	ReplicasOf(ctx context.Context, id resource.ID) ([]resource.Replica, error)

	// Standbys lists the standbys, the oldest first, until they have gone. A standby that is being removed is not
	// Ready.
	Standbys(ctx context.Context) ([]Standby, error)

	// Ended lists the replicas of revisions that ran and have ended for good, the earliest end first, until each end is
	// acknowledged. A replica that Replicas no longer lists is already in Ended or Standbys. Ends survive the end of
	// the platform, including SIGKILL. If a replica ended while the platform was down, its end has the time at which
	// its last process ended, if that is known. The number of ends is bounded: the oldest are dropped first. Replicas
	// of executions are not included, because they stay in Replicas.
	Ended(ctx context.Context) ([]End, error)

	// Acknowledge forgets the ends of replicas. It ignores names that are not in Ended.
	Acknowledge(ctx context.Context, replicas ...string) error

	// Watch sends the ID of a revision or an execution whenever one of its replicas has changed. Changes that the
	// receiver has not read yet are merged. They are never lost, and they never block the engine. The channel closes
	// when ctx ends.
	Watch(ctx context.Context) <-chan resource.ID

	// Usage returns what a replica uses now.
	Usage(ctx context.Context, replica string) (Usage, error)
}

// Execer is implemented by a runtime that can run commands inside containers.
type Execer interface {
	// Exec runs a command in a running container, next to its first process, as the same user and with the same
	// variables and limits. It returns the exit code when the command has ended and all its output was written. It
	// kills the command when ctx ends. The error wraps resource.ErrNotFound if the container does not exist or does not
	// run.
	Exec(ctx context.Context, replica, container string, e Exec) (code int, err error)
}

// Exec is a command and the streams that it is connected to.
type Exec struct {
	Command []string
	// TTY gives the command a terminal. All its output then goes to Stdout.
	TTY bool
	// Stdin may be nil for no input. The caller must unblock its Read after Exec has returned; until then it may still
	// be read from.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Resize sends the sizes of the terminal. It is nil when they do not matter.
	Resize <-chan Size
}

// Size is the size of a terminal, in characters.
type Size struct{ Width, Height int }

// Workload is a revision and the number of replicas that it should have.
type Workload struct {
	Revision resource.Revision
	Replicas int
	// Retire names replicas that end first when there are too many, because they serve no request.
	Retire []string
	// Env is set in every container. The container's own variables take precedence.
	Env []resource.EnvVar
	// Standby is the kind of standby to keep while Replicas is 0; "" means none. It has no effect while Replicas is
	// more.
	Standby resource.Standby
}

// Standby is the standby of a revision that has no replicas.
type Standby struct {
	Revision resource.ID
	Replica  string // name of the replica that it will become
	// Kind is StandbyCreated or StandbyPaused. It is StandbyCreated, even if StandbyPaused is wanted, when no replica
	// was ready at the time the count became 0.
	Kind resource.Standby
	// Ready reports whether the standby is complete: all its containers are created, or frozen.
	Ready bool
	Since time.Time
	// PIDs are the processes of its containers. Those of a StandbyCreated have not started the program yet.
	PIDs []int
}

// Execution is an execution of a job and the replicas that it should have.
type Execution struct {
	// Revision is the execution in the form of a revision. Its ID is the ID of the execution.
	Revision resource.Revision
	// Env is set in every container. The container's own variables take precedence.
	Env []resource.EnvVar
	// Replicas are the names of the wanted replicas, unique on the machine. A replica that is already listed, ended or
	// not, is left unchanged. A replica that is no longer named is ended and removed.
	Replicas []string
	// Begun names those of Replicas that have existed before. If one of them has gone, it is not created again.
	Begun []string
	// Timeout is how long a replica may run, from the start of its first container. After that, the replica is ended by
	// SIGTERM, grace and SIGKILL, and is Failed. 0 means no limit.
	Timeout time.Duration
}

// End describes the end of a replica of a revision.
type End struct {
	Replica  string
	Revision resource.ID
	Created  time.Time
	// Started is when the replica's first process started, and Ready is when the replica was first ready. Each is zero
	// if that never happened.
	Started, Ready time.Time
	// Ended is when the replica's last process ended.
	Ended  time.Time
	Reason string // one of the constants below
}

// Ran returns how long the replica ran: from the start of its first process to the end of its last one.
func (e End) Ran() time.Duration { return e.Ended.Sub(e.Started) }

// Reasons why a replica ended for good.
const (
	EndScaledIn = "ScaledIn" // its revision should have fewer replicas, or others
	EndRemoved  = "Removed"  // its revision should have none
	EndGone     = "Gone"     // it was missing when the platform came back; the time of its end is not known
)

// Usage is what the containers of a replica use together.
type Usage struct {
	CPUNanos    uint64 // since the replica's containers were created
	WorkingSet  uint64 // bytes: memory in use minus inactive file cache, which is what limits and alarms use
	MemoryPeak  uint64 // bytes
	MemoryLimit uint64 // bytes
	Processes   uint64
	Containers  []ContainerMemory
}

// ContainerMemory is the memory that a container cannot give back.
type ContainerMemory struct {
	Container string
	// Used is anonymous and shared memory, in bytes. Mapped files are not part of it: the kernel charges a page of the weights
	// to the replica that touched it first, and frees it when the limit is reached.
	Used  uint64
	Limit uint64 // bytes; 0: none
}

// Mapper is implemented by a runtime that can distinguish a replica's own memory from what it shares with others.
type Mapper interface {
	// Mapped returns the mapped memory of a replica. The error wraps resource.ErrNotFound if the replica does not
	// exist, and errors.ErrUnsupported if the driver cannot measure it.
	Mapped(ctx context.Context, replica string) (Mapped, error)
}

// Mapped is the memory that the processes of a replica have mapped, in bytes.
type Mapped struct {
	RSS uint64 // resident set size
	PSS uint64 // proportional set size: shared pages are divided by the number of processes that map them
}
