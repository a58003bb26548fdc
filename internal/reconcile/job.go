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

// job starts the executions of a job that are due, and advances each running one as far as possible now.
//
//	schedule, events, or a user ──► execution ──► replicas are named ─► stored ─► runtime.Apply
//	                                    ▲                                              │
//	                                    └── their ends are stored ◄─ runtime.Replicas ◄┘
//
// A replica's name is stored before the engine is asked for it, and its end is stored before the engine may forget it.
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
	if job.Provisioning() == resource.Deleting {
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
	begun, err = r.onEvents(ctx, job, env, executions)
	executions = append(executions, begun...)
	if err != nil {
		return err
	}
	running, err := replicasOf(ctx, r.cfg.Runtime, job.ID)
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

// lookAgain bounds the wait for a scheduled time, because the machine's clock can be changed in the meantime.
const lookAgain = time.Minute

// executions lists the executions of a job, the oldest first.
func (r *Reconciler) executions(ctx context.Context, job resource.ID) ([]resource.Execution, error) {
	all, err := r.cfg.Store.Executions().List(ctx, store.Scope{Parent: job})
	slices.SortFunc(all, func(a, b resource.Execution) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Name(), b.Name()))
	})
	return all, err
}

// provisionJob completes a write of the job. There is nothing to provision before an execution starts.
func (r *Reconciler) provisionJob(ctx context.Context, job resource.Job) error {
	if job.Observed == job.Generation {
		return nil
	}
	_, err := r.cfg.Store.Jobs().Observe(ctx, job.ID, func(_ resource.Job, status *resource.JobStatus) error {
		status.Progress = resource.Progress{Observed: job.Generation}
		return nil
	})
	return err
}

// deleteJob stops all executions of a job and then removes its documents.
func (r *Reconciler) deleteJob(ctx context.Context, job resource.Job, executions []resource.Execution) error {
	r.cfg.Scale.Forget(job.ID)
	running, err := replicasOf(ctx, r.cfg.Runtime, job.ID)
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
		return nil // the engine's next change triggers another pass
	}
	for _, e := range executions {
		if err := r.cfg.Store.Executions().Delete(ctx, e.ID); err != nil {
			return err
		}
	}
	if err := r.cfg.Forget(job.ID); err != nil {
		return err
	}
	if err := r.cfg.Store.Jobs().Delete(ctx, job.ID); err != nil {
		return err
	}
	r.left(job.ID, job.Environment)
	return nil
}

// history is how many succeeded executions, and how many others, are kept after they have ended
// (learn.microsoft.com/azure/container-apps/jobs, "Job execution history").
const history = 100

// purgeExecutions deletes the oldest ended executions above the limit.
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
