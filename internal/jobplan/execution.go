package jobplan

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"penstock/internal/resource"
)

// Step is what an execution needs next, after its new status is stored.
type Step struct {
	// Replicas are the replicas that the engine must run. Begun are those of them that have existed before. A replica
	// that existed and is gone is not started again, because nobody knows how much of its work it has done.
	Replicas, Begun []string
	// Remove says that the engine must stop and forget all replicas of the execution instead.
	Remove bool
	// Wake is when to look again if the engine reports nothing before, or zero when there is no such time.
	Wake time.Time

	// Created are the new replicas, and Failed those that have failed since the last call. They are for events.
	Created []string
	Failed  []resource.ExecutionReplica
}

// Advance returns the execution with the status that follows from the replicas in the engine, and what to do next.
// newName returns a name for a new replica. Advance calls it again if the name is taken. The argument is not changed.
func Advance(e resource.Execution, listed []resource.Replica, backoff Backoff, now time.Time, newName func() string) (resource.Execution, Step) {
	e.Replicas = slices.Clone(e.Replicas)
	var step Step
	step.Failed = observe(&e, listed, now)
	if ending(e) {
		step.Failed = nil // they are stopped on purpose
	}
	n := count(e)
	switch {
	case e.Over():
	case !e.StopAsked.IsZero():
		end(&e, listed, resource.ExecutionStopped, "Stopped", "Execution was stopped by its user", now)
	case n.succeeded >= e.Policy.Completions:
		end(&e, listed, resource.ExecutionSucceeded, "Completed", "Execution has successfully completed", now)
	case n.failed > e.Policy.Retries:
		if e.State != resource.ExecutionDegraded { // later failures come from the stop and do not change the message
			e.State, e.Reason = resource.ExecutionDegraded, "BackoffLimitExceeded"
			e.Message = fmt.Sprintf("Execution has failed: %s, with a retry limit of %d; the last: %s", failures(n.failed), e.Policy.Retries, n.why)
		}
		end(&e, listed, resource.ExecutionFailed, e.Reason, e.Message, now)
	default:
		var missing int
		missing, step.Wake = needed(e, n, backoff, now)
		step.Created = add(&e, missing, newName)
		if n.started && e.State == resource.ExecutionProcessing {
			e.State = resource.ExecutionRunning
		}
	}
	if step.Remove = e.Over() || ending(e); !step.Remove {
		step.Replicas, step.Begun = wanted(e, listed)
	}
	return e, step
}

// Fail returns an execution that has failed for a reason that is not a failed replica. Its unfinished replicas count as
// ended.
func Fail(e resource.Execution, reason, message string, now time.Time) resource.Execution {
	e.Replicas = slices.Clone(e.Replicas)
	end(&e, nil, resource.ExecutionFailed, reason, message, now)
	return e
}

// ending says whether the replicas of an execution are being stopped.
func ending(e resource.Execution) bool {
	return !e.StopAsked.IsZero() || e.State == resource.ExecutionDegraded
}

// observe applies what the engine reports about the replicas. It returns those that have failed since the last call.
func observe(e *resource.Execution, listed []resource.Replica, now time.Time) (failed []resource.ExecutionReplica) {
	for i := range e.Replicas {
		r := &e.Replicas[i]
		if !r.Ended.IsZero() {
			continue
		}
		at := slices.IndexFunc(listed, func(l resource.Replica) bool { return l.Name == r.Name })
		switch {
		case at >= 0:
			observeReplica(r, listed[at], now)
		case r.Started.IsZero():
			continue // the engine has not created it yet
		default:
			r.Ended = now
			r.Reason = cmp.Or(r.Reason, "the replica has gone before its end was seen")
		}
		if !r.Ended.IsZero() && !r.Succeeded {
			failed = append(failed, *r)
		}
	}
	return failed
}

// observeReplica applies what the engine reports about one replica.
func observeReplica(r *resource.ExecutionReplica, l resource.Replica, now time.Time) {
	r.Containers = slices.Concat(l.InitContainers, l.Containers)
	var last time.Time
	for _, c := range r.Containers {
		if !c.Started.IsZero() && (r.Started.IsZero() || c.Started.Before(r.Started)) {
			r.Started = c.Started.UTC()
		}
		if c.LastExit != nil && c.LastExit.At.After(last) {
			last = c.LastExit.At.UTC()
		}
	}
	switch l.State {
	case resource.ReplicaSucceeded:
		r.Succeeded = true
	case resource.ReplicaFailed:
		r.Reason = l.Reason
	default:
		return
	}
	if r.Ended = last; last.IsZero() {
		r.Ended = now
	}
}

// tally counts the replicas of an execution by their state.
type tally struct {
	active, succeeded, failed int
	started                   bool // at least one has run
	lastFailure               time.Time
	why                       string // the reason of the last failure
}

func count(e resource.Execution) (n tally) {
	for _, r := range e.Replicas {
		n.started = n.started || !r.Started.IsZero()
		switch {
		case r.Ended.IsZero():
			n.active++
		case r.Succeeded:
			n.succeeded++
		default:
			n.failed++
			if !r.Ended.Before(n.lastFailure) {
				n.lastFailure, n.why = r.Ended, r.Reason
			}
		}
	}
	return n
}

func failures(n int) string {
	if n == 1 {
		return "a replica has failed"
	}
	return fmt.Sprintf("%d replicas have failed", n)
}

// needed returns how many replicas start now, or when the next can start if they have to wait after a failure. As in a
// Kubernetes job, no more replicas run than successes are missing.
func needed(e resource.Execution, n tally, backoff Backoff, now time.Time) (missing int, wake time.Time) {
	missing = min(e.Policy.Parallelism, e.Policy.Completions-n.succeeded) - n.active
	if missing <= 0 {
		return 0, time.Time{}
	}
	if again := n.lastFailure.Add(backoff.after(n.failed)); n.failed > 0 && again.After(now) {
		return 0, again
	}
	return missing, time.Time{}
}

// add adds new replicas to an execution and returns their names.
func add(e *resource.Execution, n int, newName func() string) (created []string) {
	for len(created) < n {
		name := newName()
		if slices.ContainsFunc(e.Replicas, func(r resource.ExecutionReplica) bool { return r.Name == name }) {
			continue
		}
		e.Replicas = append(e.Replicas, resource.ExecutionReplica{Name: name})
		created = append(created, name)
	}
	return created
}

// end ends an execution if the engine has none of its unfinished replicas any more. Otherwise the execution is handled
// again when the engine reports a change.
func end(e *resource.Execution, listed []resource.Replica, state resource.ExecutionState, reason, message string, now time.Time) {
	left := 0
	for i := range e.Replicas {
		r := &e.Replicas[i]
		if !r.Ended.IsZero() {
			continue
		}
		r.Reason = "ended with its execution"
		if isListed(listed, r.Name) {
			left++
			continue
		}
		r.Ended = now
	}
	if left == 0 {
		e.State, e.Reason, e.Message, e.Ended = state, reason, message, now
	}
}

// wanted returns the replicas that have not ended, and which of them have existed before.
func wanted(e resource.Execution, listed []resource.Replica) (replicas, begun []string) {
	for _, r := range e.Replicas {
		if !r.Ended.IsZero() {
			continue
		}
		replicas = append(replicas, r.Name)
		if !r.Started.IsZero() || isListed(listed, r.Name) {
			begun = append(begun, r.Name)
		}
	}
	return replicas, begun
}

func isListed(listed []resource.Replica, name string) bool {
	return slices.ContainsFunc(listed, func(l resource.Replica) bool { return l.Name == name })
}
