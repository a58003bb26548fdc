package local

import (
	"context"
	"fmt"
	"slices"
	"time"

	"penstock/internal/resource"
	"penstock/internal/runtimes"
)

// once is what a keeper knows of a replica that runs to its end.
type once struct {
	set     bool
	timeout time.Duration
	why     string                // it fails, and what still runs in it is ended
	state   resource.ReplicaState // "" until it has ended
}

// startTries is how often a container that has not run yet is tried to be started. Nothing has been done then that a
// second run would do twice, so a passing fault of the machine is not the execution's.
const startTries = 3

// kindOf is the type of what replicas belong to.
func kindOf(once bool) string {
	if once {
		return resource.TypeExecution
	}
	return resource.TypeRevision
}

// run makes the replicas of an execution those that w names.
func (e *Engine) run(w runtimes.Workload) error {
	e.mu.Lock()
	var missing []string
	for _, name := range w.Run.Replicas {
		k := e.keepers[name]
		if k == nil && !slices.Contains(w.Run.Begun, name) {
			missing = append(missing, name)
		} else if k != nil && k.rev.ID.Key() != w.Revision.ID.Key() {
			e.mu.Unlock()
			return fmt.Errorf("execution %s: replica %q is one of %s", w.Revision.Name(), name, k.rev.ID)
		}
	}
	if len(missing) > 0 {
		if err := e.cfg.Capacity.fits(w.Revision); err != nil {
			e.mu.Unlock()
			return fmt.Errorf("execution %s: %w", w.Revision.Name(), err)
		}
	}
	for _, name := range missing {
		k := newKeeper(e, name, w.Revision, w.Env, time.Now())
		k.once.set, k.once.timeout = true, w.Run.Timeout
		e.add(k)
	}
	for _, k := range e.live(w.Revision.ID) {
		k.lookAgain()
		if !slices.Contains(w.Run.Replicas, k.name) {
			e.stop(k)
		}
	}
	slow := len(missing) > 0 && e.tooMuchCPU(w.Revision)
	e.mu.Unlock()
	if slow {
		e.emitSlow(w.Revision)
	}
	return nil
}

// ended takes the end of a container that is not started again. why is empty when it ended by itself.
func (k *keeper) ended(c *container, exit resource.Exit, why string, ran time.Duration) {
	c.done, c.failed = true, exit.Code != 0 || why != ""
	c.last, c.ready = &exit, false
	k.tellEnd(c, exit, why, ran)
}

// neverStarts gives a replica up of which a container cannot be started.
func (k *keeper) neverStarts(ctx context.Context, c *container, err error) {
	c.done, c.failed = true, true
	c.last = &resource.Exit{Code: startErrorCode, At: time.Now(), Reason: "StartError"}
	k.tell(warning, "ContainerCreateFailure", 0, "Container '%s' cannot be started: %v. It is not tried again.", c.spec.Name, err)
	k.giveUp(ctx, fmt.Sprintf("container '%s' cannot be started: %v", c.spec.Name, err), "ReplicaFailed")
}

// startErrorCode is the exit code that Kubernetes gives a container whose process could not be started.
const startErrorCode = 128

// deadline is when the replica has run for as long as it may; zero when it has no limit or has not begun.
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

// watchTimeout ends a replica that has run for longer than it may.
func (k *keeper) watchTimeout(ctx context.Context) {
	at := k.deadline()
	if at.IsZero() || at.After(time.Now()) || k.once.why != "" {
		return
	}
	why := fmt.Sprintf("ran longer than its time limit of %s", k.once.timeout)
	k.tell(warning, deadlineExceeded, 0, "Replica '%s' %s and is ended.", k.name, why)
	k.giveUp(ctx, why, deadlineExceeded)
}

// deadlineExceeded is Kubernetes' word for a time limit that has passed.
const deadlineExceeded = "DeadlineExceeded"

// giveUp ends what runs of a replica that has failed.
func (k *keeper) giveUp(ctx context.Context, why, word string) {
	k.once.why = why
	for _, c := range k.containers {
		c.due = time.Time{}
		if c.up() && c.phase != killing {
			k.stopContainer(ctx, c, k.rev.Template.Grace, word)
		}
	}
}

// conclude notes that the replica has come to its end, when it has.
func (k *keeper) conclude(ctx context.Context) {
	if !k.once.set || k.once.state != "" || ctx.Err() != nil {
		return
	}
	all, failed := true, k.once.why != ""
	for _, c := range k.containers {
		switch {
		case c.up():
			return
		case c.init && c.failed: // nothing behind it starts
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
