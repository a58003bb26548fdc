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
