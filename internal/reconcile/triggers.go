package reconcile

import (
	"context"
	"time"

	"penstock/internal/jobplan"
	"penstock/internal/resource"
)

// onSchedule starts the execution that is due, if any, and returns when to look again. A second call for the same
// scheduled time starts nothing.
func (r *Reconciler) onSchedule(ctx context.Context, job resource.Job, executions []resource.Execution) (begun []resource.Execution, next time.Time, err error) {
	due, err := jobplan.Schedule(job, executions, time.Now().UTC())
	if err != nil || due.At.IsZero() {
		return nil, due.Next, err
	}
	for _, w := range due.Warnings {
		r.warn(job.ID, w.Execution, w.Reason, w.Message)
	}
	if due.Start != nil {
		e, _, err := r.cfg.Store.Executions().Create(ctx, *due.Start, nil)
		if err != nil {
			return nil, due.Next, err
		}
		begun = append(begun, e)
	}
	_, err = r.cfg.Store.Jobs().Observe(ctx, job.ID, func(_ resource.Job, status *resource.JobStatus) error {
		status.LastDue = due.At
		return nil
	})
	return begun, due.Next, err
}

// onEvents starts the executions that the events of the job ask for. It uses each answer of the events once. An answer
// that is lost with this process, or by an error here, is replaced by the next one, because a source tells of its work
// until the work is done.
func (r *Reconciler) onEvents(ctx context.Context, job resource.Job, env resource.Environment, executions []resource.Execution) (begun []resource.Execution, err error) {
	if job.Configuration.Trigger != resource.TriggerEvent || job.Suspended {
		r.cfg.Scale.Forget(job.ID)
		return nil, nil
	}
	settings, err := env.Settings(job.Tags)
	if err != nil {
		return nil, err
	}
	n, at, ok := r.cfg.Scale.Demand(job, settings)
	if !ok {
		return nil, nil
	}
	newName := func() string { return resource.ExecutionName(job.ID.Base()) }
	for _, e := range jobplan.Events(job, executions, jobplan.Demand{Executions: n, At: at}, newName, time.Now().UTC()) {
		made, _, err := r.cfg.Store.Executions().Create(ctx, e, nil)
		if err != nil {
			return begun, err
		}
		begun = append(begun, made)
	}
	return begun, nil
}
