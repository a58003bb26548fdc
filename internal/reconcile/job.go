package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"penstock/internal/resource"
	"penstock/internal/store"
)

// job begins the executions of a job that are due, and brings each that is under way as far as it can be brought now.
//
//	schedule, or a user's start ──► execution ──► replicas are named ─► stored ─► runtime.Apply
//	                                    ▲                                              │
//	                                    └── their ends are stored ◄─ runtime.Replicas ◄┘
//
// A replica is named in the store before it is asked for, and its end is in the store before the engine may forget it.
// So nothing runs twice, whenever this process ends.
func (r *Reconciler) job(ctx context.Context, id resource.ID) error {
	job, err := r.cfg.Store.Jobs().Get(ctx, id)
	if err != nil {
		return err
	}
	executions, err := r.executions(ctx, id)
	if err != nil {
		return err
	}
	if job.Provisioning == resource.Deleting {
		return r.deleteJob(ctx, job, executions)
	}
	env, err := r.cfg.Store.Environments().Get(ctx, job.Environment)
	if err != nil {
		return err
	}
	if err := r.provisionJob(ctx, job); err != nil {
		return err
	}
	begun, wake, err := r.onSchedule(ctx, job, executions)
	if err != nil {
		return err
	}
	executions = append(executions, begun...)
	running, err := r.engine.look(ctx, r.cfg.Runtime)
	if err != nil {
		return err
	}
	var errs []error
	for i, e := range executions {
		at, err := r.execution(ctx, job, env, &executions[i], running[e.ID.Key()])
		if err != nil {
			errs = append(errs, fmt.Errorf("execution %s: %w", e.Name(), err))
		}
		if !at.IsZero() && (wake.IsZero() || at.Before(wake)) {
			wake = at
		}
	}
	if err := r.purgeExecutions(ctx, executions, running); err != nil {
		errs = append(errs, err)
	}
	if !wake.IsZero() {
		r.queue.later(id, max(0, min(time.Until(wake), lookAgain)))
	}
	return errors.Join(errs...)
}

// lookAgain bounds the wait for a time of the day, because the clock of the machine may be set meanwhile.
const lookAgain = time.Minute

// executions lists those of a job, the oldest first.
func (r *Reconciler) executions(ctx context.Context, job resource.ID) ([]resource.Execution, error) {
	all, err := r.cfg.Store.Executions().List(ctx, store.Scope{Parent: job})
	for i := range all {
		all[i].Replicas = slices.Clone(all[i].Replicas) // what is read is shared
	}
	slices.SortFunc(all, func(a, b resource.Execution) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Name(), b.Name()))
	})
	return all, err
}

// provisionJob ends a write of the job. There is nothing to provision before an execution begins.
func (r *Reconciler) provisionJob(ctx context.Context, job resource.Job) error {
	if job.Observed == job.Generation && job.Provisioning == resource.Succeeded {
		return nil
	}
	_, err := r.cfg.Store.Jobs().Put(ctx, job.ID, func(j *resource.Job, exists bool) error {
		if !exists {
			return fmt.Errorf("job %s: %w", job.ID.Base(), resource.ErrNotFound)
		}
		if j.Generation == job.Generation && j.Provisioning != resource.Deleting {
			j.Provisioning, j.ProvisioningError, j.Observed = resource.Succeeded, "", j.Generation
		}
		return nil
	})
	return err
}

// deleteJob ends all executions of a job and then removes its documents.
func (r *Reconciler) deleteJob(ctx context.Context, job resource.Job, executions []resource.Execution) error {
	running, err := r.engine.look(ctx, r.cfg.Runtime)
	if err != nil {
		return err
	}
	left := 0
	for _, e := range executions {
		left += len(running[e.ID.Key()])
		if err := r.cfg.Runtime.Remove(ctx, e.ID); err != nil {
			return fmt.Errorf("remove execution %s: %w", e.Name(), err)
		}
	}
	if left > 0 {
		return nil // the engine's next change brings us back
	}
	for _, e := range executions {
		if err := r.cfg.Store.Executions().Delete(ctx, e.ID); err != nil {
			return err
		}
	}
	if err := r.cfg.Forget(job.ID); err != nil {
		return err
	}
	return r.cfg.Store.Jobs().Delete(ctx, job.ID)
}

// history is how many executions that succeeded, and how many others, are kept when they are over
// (learn.microsoft.com/azure/container-apps/jobs, "Job execution history").
const history = 100

// purgeExecutions deletes the oldest executions that are over, above the limit.
func (r *Reconciler) purgeExecutions(ctx context.Context, executions []resource.Execution, running map[string][]resource.Replica) error {
	kept := map[bool]int{}
	for _, e := range slices.Backward(executions) {
		if !e.Over() {
			continue
		}
		good := e.State == resource.ExecutionSucceeded
		if kept[good]++; kept[good] <= history || len(running[e.ID.Key()]) > 0 {
			continue
		}
		if err := r.cfg.Store.Executions().Delete(ctx, e.ID); err != nil {
			return err
		}
	}
	return nil
}
