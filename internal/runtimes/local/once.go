package local

import (
	"context"
	"fmt"
	"slices"
	"time"

	"penstock/internal/resource"
	"penstock/internal/runtimes"
)

// once is the state of a replica that runs to its end.
type once struct {
	set     bool
	timeout time.Duration
	why     string                // why it fails; what still runs in it is ended
	state   resource.ReplicaState // "" until it has ended
}

// startTries is how often the keeper tries to start a container that has not run yet. Nothing has been done yet that a
// second run would repeat, so a temporary fault of the machine does not fail the execution.
const startTries = 3

// kindOf returns the type of the resource that a replica belongs to.
func kindOf(once bool) string {
	if once {
		return resource.TypeExecution
	}
	return resource.TypeRevision
}

// Execute implements runtimes.Runtime.
func (e *Engine) Execute(ctx context.Context, x runtimes.Execution) error {
	if !x.Revision.ID.Is(resource.TypeExecution) {
		return fmt.Errorf("execution %s: want a %s, got a %s", x.Revision.Name(), resource.TypeExecution, x.Revision.ID.Type)
	}
	if err := e.wait(ctx); err != nil {
		return err
	}
	e.mu.Lock()
	var missing []string
	for _, name := range x.Replicas {
		k := e.keepers[name]
		if k == nil && !slices.Contains(x.Begun, name) {
			missing = append(missing, name)
		} else if k != nil && k.rev.ID.Key() != x.Revision.ID.Key() {
			e.mu.Unlock()
			return fmt.Errorf("execution %s: replica %q is one of %s", x.Revision.Name(), name, k.rev.ID)
		}
	}
	if len(missing) > 0 {
		if err := e.cfg.Capacity.fits(x.Revision); err != nil {
			e.mu.Unlock()
			return fmt.Errorf("execution %s: %w", x.Revision.Name(), err)
		}
	}
	for _, name := range missing {
		k := newKeeper(e, name, x.Revision, x.Env, time.Now())
		k.once.set, k.once.timeout = true, x.Timeout
		e.add(k)
	}
	for _, k := range e.live(x.Revision.ID) {
		k.lookAgain()
		if !slices.Contains(x.Replicas, k.name) {
			e.stop(k, "")
		}
	}
	var told []resource.Event
	if len(missing) > 0 {
		told = e.tooSmall(x.Revision)
	}
	e.mu.Unlock()
	for _, ev := range told {
		e.cfg.Emit(ev)
	}
	return nil
}

// ended handles the end of a container that is not restarted. why is empty if it ended by itself.
func (k *keeper) ended(c *container, exit resource.Exit, why string, ran time.Duration) {
	c.done, c.failed = true, exit.Code != 0 || why != ""
	c.last, c.ready = &exit, false
	k.tellEnd(c, exit, why, ran)
}

// neverStarts fails a replica because one of its containers cannot be started.
func (k *keeper) neverStarts(ctx context.Context, c *container, err error) {
	c.done, c.failed = true, true
	c.last = &resource.Exit{Code: startErrorCode, At: time.Now(), Reason: "StartError"}
	k.tell(warning, "ContainerCreateFailure", 0, "Container '%s' cannot be started: %v. It is not tried again.", c.spec.Name, err)
	k.giveUp(ctx, fmt.Sprintf("container '%s' cannot be started: %v", c.spec.Name, err), "ReplicaFailed")
}

// startErrorCode is the exit code that Kubernetes reports for a container whose process could not be started.
const startErrorCode = 128

// deadline returns when the replica will have run for its maximum time. It is zero if the replica has no limit or has
// not started.
func (k *keeper) deadline() time.Time {
	var began time.Time
	for _, c := range k.containers {
		if !c.started.IsZero() && (began.IsZero() || c.started.Before(began)) {
			began = c.started
		}
	}
	if k.once.timeout <= 0 || began.IsZero() {
		return time.Time{}
	}
	return began.Add(k.once.timeout)
}

// watchTimeout ends a replica that has run for longer than its limit.
func (k *keeper) watchTimeout(ctx context.Context) {
	at := k.deadline()
	if at.IsZero() || at.After(time.Now()) || k.once.why != "" {
		return
	}
	why := fmt.Sprintf("ran longer than its time limit of %s", k.once.timeout)
	k.tell(warning, deadlineExceeded, 0, "Replica '%s' %s and is ended.", k.name, why)
	k.giveUp(ctx, why, deadlineExceeded)
}

// deadlineExceeded is Kubernetes' reason for a time limit that has passed.
const deadlineExceeded = "DeadlineExceeded"

// giveUp ends what still runs in a replica that has failed.
func (k *keeper) giveUp(ctx context.Context, why, word string) {
	k.once.why = why
	for _, c := range k.containers {
		c.due = time.Time{}
		if c.up() && c.phase != killing {
			k.stopContainer(ctx, c, k.rev.Template.Grace, word)
		}
	}
}

// conclude records the end of the replica, if it has ended.
func (k *keeper) conclude(ctx context.Context) {
	if !k.once.set || k.once.state != "" || ctx.Err() != nil {
		return
	}
	all, failed := true, k.once.why != ""
	for _, c := range k.containers {
		switch {
		case c.up():
			return
		case c.init && c.failed: // containers after it do not start
			k.conclusion(resource.ReplicaFailed)
			return
		case !c.done:
			all = false
		}
		failed = failed || c.failed
	}
	switch {
	case all && !failed:
		k.conclusion(resource.ReplicaSucceeded)
	case failed && (all || k.once.why != ""):
		k.conclusion(resource.ReplicaFailed)
	}
}

func (k *keeper) conclusion(state resource.ReplicaState) {
	k.once.state = state
	if state == resource.ReplicaFailed && k.once.why == "" {
		for _, c := range k.containers {
			if c.failed {
				k.once.why = fmt.Sprintf("container '%s' ended with exit code %d (%s)", c.spec.Name, c.last.Code, c.last.Reason)
				break
			}
		}
	}
	k.e.giveBack(k)
}
