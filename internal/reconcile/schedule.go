package reconcile

import (
	"context"
	"fmt"
	"slices"
	"time"

	"penstock/internal/resource"
)

const (
	// lateLimit is how late an execution of a schedule may begin. Of the times that passed while nobody was there to
	// begin executions, the newest is made up for within it, and the others are not: as Kubernetes' CronJob does with a
	// startingDeadlineSeconds of an hour (kubernetes.io/docs/concepts/workloads/controllers/cron-jobs).
	lateLimit = time.Hour
	// lateTold is from when on an execution is called late in the log.
	lateTold = time.Minute
)

// onSchedule begins the execution that is due, if one is, and says when to look again. Two calls begin the same one.
func (r *Reconciler) onSchedule(ctx context.Context, job resource.Job, executions []resource.Execution) (begun []resource.Execution, next time.Time, err error) {
	if job.Configuration.Trigger != resource.TriggerSchedule || job.Suspended {
		return nil, time.Time{}, nil
	}
	cron, err := resource.ParseCron(job.Configuration.Cron)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("job %s: %w", job.ID.Base(), err) // it was checked when it was written
	}
	now := time.Now().UTC()
	next = cron.Next(now)
	due := cron.Newest(job.Since, now)
	if due.IsZero() {
		return nil, next, nil
	}
	if first := cron.Next(job.Since); first.Before(due) {
		r.warn(job.ID, "", "ScheduleMissed", fmt.Sprintf("The schedule was due at %s and after that, when this server did not run; of those times only the last can be made up for, that of %s",
			first.Format(time.RFC3339), due.Format(time.RFC3339)))
	}
	name := resource.ScheduledName(job.ID.Base(), due)
	unfinished := 0
	for _, e := range executions {
		if !e.Over() {
			unfinished++
		}
	}
	late := now.Sub(due)
	switch {
	case slices.ContainsFunc(executions, func(e resource.Execution) bool { return e.Name() == name }):
		// Begun before a crash; the job did not learn of it.
	case late > lateLimit:
		r.warn(job.ID, "", "ScheduleMissed", fmt.Sprintf("The execution that was due at %s is not begun: that is more than %s ago", due.Format(time.RFC3339), lateLimit))
	case unfinished >= resource.MaxUnfinished:
		r.warn(job.ID, "", "ExecutionSkipped", fmt.Sprintf("The execution that was due at %s is not begun: %d executions of the job have not ended", due.Format(time.RFC3339), unfinished))
	default:
		if late >= lateTold {
			r.warn(job.ID, name, "ExecutionLate", fmt.Sprintf("The execution that was due at %s begins %s late", due.Format(time.RFC3339), late.Round(time.Second)))
		}
		e := job.NewExecution(name, job.Template, now)
		e.Due = due
		if e, err = r.cfg.Store.Executions().Put(ctx, e.ID, func(kept *resource.Execution, exists bool) error {
			if !exists {
				*kept = e
			}
			return nil
		}); err != nil {
			return nil, next, err
		}
		begun = append(begun, e)
	}
	_, err = r.cfg.Store.Jobs().Put(ctx, job.ID, func(j *resource.Job, exists bool) error {
		if !exists {
			return fmt.Errorf("job %s: %w", job.ID.Base(), resource.ErrNotFound)
		}
		// A write that came meanwhile, with another schedule, counts from itself.
		if j.Since.Before(due) {
			j.Since = due
		}
		return nil
	})
	return begun, next, err
}
