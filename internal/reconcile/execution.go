package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"penstock/internal/resource"
	"penstock/internal/runtimes"
)

// Backoff spaces out the tries of an execution that fails. The zero value is Kubernetes' for jobs: 10, 20, 40 ... 360 s
// (kubernetes.io/docs/concepts/workloads/controllers/job, "Pod backoff failure policy").
type Backoff struct{ First, Max time.Duration }

const (
	kubernetesFirst = 10 * time.Second
	kubernetesMax   = 6 * time.Minute
)

// after is the pause after so many failures.
func (b Backoff) after(failures int) time.Duration {
	d, most := cmp.Or(b.First, kubernetesFirst), cmp.Or(b.Max, kubernetesMax)
	for range failures - 1 {
		if d *= 2; d >= most {
			break
		}
	}
	return min(d, most)
}

// execution brings an execution as far as it can be brought now. listed are its replicas in the engine; wake is when to
// look again without news of them, zero when never.
func (r *Reconciler) execution(ctx context.Context, job resource.Job, env resource.Environment, e *resource.Execution, listed []resource.Replica) (wake time.Time, err error) {
	if e.Over() {
		if len(staying(listed)) > 0 {
			err = r.cfg.Runtime.Remove(ctx, e.ID)
		}
		return time.Time{}, err
	}
	if err := r.prepare(ctx, job, env, e); err != nil {
		return time.Time{}, err
	}
	now := time.Now().UTC()
	failed := observe(e, listed, now)
	if !e.StopAsked.IsZero() || e.State == resource.ExecutionDegraded {
		failed = nil // they are ended, and that is no news
	}
	n := count(*e)
	var made []string
	switch {
	case e.Over(): // it could not be prepared
	case !e.StopAsked.IsZero():
		end(e, listed, resource.ExecutionStopped, "Stopped", "Execution was stopped by its user", now)
	case n.succeeded >= e.Plan.Completions:
		end(e, listed, resource.ExecutionSucceeded, "Completed", "Execution has successfully completed", now)
	case n.failed > e.Plan.Retries:
		if e.State != resource.ExecutionDegraded { // what is ended because of it is no further failure
			e.State, e.Reason = resource.ExecutionDegraded, "BackoffLimitExceeded"
			e.Message = fmt.Sprintf("Execution has failed: %s, with a retry limit of %d; the last: %s", failures(n.failed), e.Plan.Retries, n.why)
		}
		end(e, listed, resource.ExecutionFailed, e.Reason, e.Message, now)
	default:
		made, wake = r.more(e, n, now)
		if n.started && e.State == resource.ExecutionProcessing {
			e.State = resource.ExecutionRunning
		}
	}
	if err := r.keepExecution(ctx, job, e, failed, made); err != nil {
		return wake, err
	}
	if e.Over() || e.State == resource.ExecutionDegraded || !e.StopAsked.IsZero() {
		return wake, r.cfg.Runtime.Remove(ctx, e.ID)
	}
	err = r.cfg.Runtime.Apply(ctx, runtimes.Workload{Revision: e.Revision, Env: jobEnv(job, *e), Run: run(*e, listed)})
	if errors.Is(err, runtimes.ErrTooLarge) {
		end(e, nil, resource.ExecutionFailed, "TooLarge", err.Error(), now)
		err = r.keepExecution(ctx, job, e, nil, nil)
	}
	return wake, err
}

// prepare finds what an execution's replicas run under, once.
func (r *Reconciler) prepare(ctx context.Context, job resource.Job, env resource.Environment, e *resource.Execution) error {
	if e.Revision.Images != nil {
		return nil
	}
	settings, err := env.Settings(job.Tags)
	if err != nil {
		return err
	}
	images, err := r.digests(ctx, job.Keyring(), e.Revision.Template)
	if errors.Is(err, resource.ErrNotFound) {
		end(e, nil, resource.ExecutionFailed, "ImageNotFound", err.Error(), time.Now().UTC())
		return nil
	}
	e.Revision.Settings, e.Revision.Images = settings, images
	return err
}

// observe takes what the engine knows of an execution's replicas. It returns those that have failed since the last look.
func observe(e *resource.Execution, listed []resource.Replica, now time.Time) (failed []resource.ExecutionReplica) {
	for i := range e.Replicas {
		r := &e.Replicas[i]
		if !r.Ended.IsZero() {
			continue
		}
		at := slices.IndexFunc(listed, func(l resource.Replica) bool { return l.Name == r.Name })
		switch {
		case at >= 0:
			look(r, listed[at], now)
		case r.Started.IsZero():
			continue // it is still to be made, and has done nothing
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

// look takes what the engine knows of one replica.
func look(r *resource.ExecutionReplica, l resource.Replica, now time.Time) {
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

// tally is what has become of an execution's replicas.
type tally struct {
	active, succeeded, failed int
	started                   bool // one of them has run
	lastFailure               time.Time
	why                       string // of it
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

// more names the replicas that are to begin now. As in a Kubernetes job no more run than successes are missing.
func (r *Reconciler) more(e *resource.Execution, n tally, now time.Time) (made []string, wake time.Time) {
	missing := min(e.Plan.Parallelism, e.Plan.Completions-n.succeeded) - n.active
	if missing <= 0 {
		return nil, time.Time{}
	}
	if again := n.lastFailure.Add(r.cfg.Backoff.after(n.failed)); n.failed > 0 && again.After(now) {
		return nil, again
	}
	for len(made) < missing {
		name := e.ReplicaName()
		if slices.ContainsFunc(e.Replicas, func(r resource.ExecutionReplica) bool { return r.Name == name }) {
			continue
		}
		e.Replicas = append(e.Replicas, resource.ExecutionReplica{Name: name})
		made = append(made, name)
	}
	return made, time.Time{}
}

// end brings an execution to its end, when none of its replicas that have not ended is left in the engine. Until then
// the engine's next change brings us back.
func end(e *resource.Execution, listed []resource.Replica, state resource.ExecutionState, reason, message string, now time.Time) {
	left := 0
	for i := range e.Replicas {
		r := &e.Replicas[i]
		if !r.Ended.IsZero() {
			continue
		}
		r.Reason = "ended with its execution"
		if slices.ContainsFunc(listed, func(l resource.Replica) bool { return l.Name == r.Name }) {
			left++
			continue
		}
		r.Ended = now
	}
	if left == 0 {
		e.State, e.Reason, e.Message, e.Ended = state, reason, message, now
	}
}

// run is what the engine is asked for: the replicas that have not ended. Those that have been there are not made again
// when they are gone: who removed them has ended their work somewhere in the middle.
func run(e resource.Execution, listed []resource.Replica) *runtimes.Run {
	run := &runtimes.Run{Timeout: e.Plan.Timeout}
	for _, r := range e.Replicas {
		if !r.Ended.IsZero() {
			continue
		}
		run.Replicas = append(run.Replicas, r.Name)
		if !r.Started.IsZero() || slices.ContainsFunc(listed, func(l resource.Replica) bool { return l.Name == r.Name }) {
			run.Begun = append(run.Begun, r.Name)
		}
	}
	return run
}

// keepExecution stores what reconcile knows of an execution, and then tells what is new of it. A document that is as it
// was costs no sync of the disk.
func (r *Reconciler) keepExecution(ctx context.Context, job resource.Job, e *resource.Execution, failed []resource.ExecutionReplica, made []string) error {
	was := resource.Execution{}
	_, err := r.cfg.Store.Executions().Put(ctx, e.ID, func(kept *resource.Execution, exists bool) error {
		if !exists {
			return fmt.Errorf("execution %s: %w", e.Name(), resource.ErrNotFound)
		}
		was = *kept
		asked := kept.StopAsked // of a user, and perhaps newer
		*kept = *e
		kept.StopAsked = asked
		return nil
	})
	if err != nil {
		return err
	}
	for _, replica := range failed {
		r.cfg.Emit(resource.Event{
			At: time.Now().UTC(), Warning: true, App: job.ID, Revision: e.Name(), Replica: replica.Name, Reason: "ReplicaFailed",
			Message: fmt.Sprintf("Replica '%s' has failed: %s", replica.Name, replica.Reason), Source: eventSource,
		})
	}
	for _, name := range made {
		r.emitReplica(e.Revision, name, "SuccessfulCreate", fmt.Sprintf("Created replica '%s'", name))
	}
	switch {
	case was.Over() || !e.Over():
	case e.State == resource.ExecutionFailed:
		r.warn(job.ID, e.Name(), e.Reason, e.Message)
	default:
		r.emit(job.ID, e.Name(), e.Reason, e.Message, e.Ended.Sub(e.Created))
	}
	return nil
}

// jobEnv are the platform's variables (learn.microsoft.com/azure/container-apps/environment-variables).
func jobEnv(job resource.Job, e resource.Execution) []resource.EnvVar {
	return []resource.EnvVar{
		{Name: "CONTAINER_APP_JOB_NAME", Value: job.ID.Base()},
		{Name: "CONTAINER_APP_JOB_EXECUTION_NAME", Value: e.Name()},
	}
}
