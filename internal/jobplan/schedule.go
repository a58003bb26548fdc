package jobplan

import (
	"fmt"
	"slices"
	"time"

	"penstock/internal/resource"
)

const (
	// lateLimit is how late a scheduled execution can start. After a time without a server, the newest missed execution
	// starts if it is not later than this. Older ones do not start. A Kubernetes CronJob with a startingDeadlineSeconds
	// of one hour does the same (kubernetes.io/docs/concepts/workloads/controllers/cron-jobs).
	lateLimit = time.Hour
	// lateReported is how late an execution must be for a warning.
	lateReported = time.Minute
)

// Due is what a schedule asks for at one moment.
type Due struct {
	// At is the newest scheduled time that has passed and is not handled yet, or zero when there is none. When Start is
	// stored, At and all scheduled times before it are handled.
	At time.Time
	// Start is the execution to create, or nil if none starts. It has the same name each time, so that creating it
	// again after a crash does not start it twice.
	Start *resource.Execution
	// Warnings are about scheduled times that were missed, are late, or come before earlier executions have ended.
	Warnings []Warning
	// Next is the next scheduled time, or zero when the job has no active schedule.
	Next time.Time
}

// Warning is an event for users.
type Warning struct {
	// Execution is the name of the execution that it is about, or "".
	Execution       string
	Reason, Message string
}

// Schedule decides what the schedule of a job asks for. executions are all executions of the job that are stored.
func Schedule(job resource.Job, executions []resource.Execution, now time.Time) (Due, error) {
	if job.Configuration.Trigger != resource.TriggerSchedule || job.Suspended {
		return Due{}, nil
	}
	cron, err := resource.ParseCron(job.Configuration.Cron)
	if err != nil {
		return Due{}, fmt.Errorf("job %s: %w", job.ID.Base(), err) // it was checked when it was written
	}
	due := Due{At: cron.Newest(job.Since(), now), Next: cron.Next(now)}
	if due.At.IsZero() {
		return due, nil
	}
	warn := func(execution, reason, format string, args ...any) {
		due.Warnings = append(due.Warnings, Warning{execution, reason, fmt.Sprintf(format, args...)})
	}
	at := due.At.Format(time.RFC3339)
	if first := cron.Next(job.Since()); first.Before(due.At) {
		warn("", "ScheduleMissed", "The schedule was due at %s and after that, when this server did not run; of those times only the last can be made up for, that of %s",
			first.Format(time.RFC3339), at)
	}
	name := resource.ScheduledName(job.ID.Base(), due.At)
	late, unfinished := now.Sub(due.At), countUnfinished(executions)
	switch {
	case slices.ContainsFunc(executions, func(e resource.Execution) bool { return e.Name() == name }):
		// It was created before a crash, and the crash came before the job's LastDue was stored.
	case late > lateLimit:
		warn("", "ScheduleMissed", "The execution that was due at %s is not begun: that is more than %s ago", at, lateLimit)
	case unfinished >= resource.MaxUnfinished:
		warn("", "ExecutionSkipped", "The execution that was due at %s is not begun: %d executions of the job have not ended", at, unfinished)
	default:
		if late >= lateReported {
			warn(name, "ExecutionLate", "The execution that was due at %s begins %s late", at, late.Round(time.Second))
		}
		if unfinished > 0 {
			warn(name, "ExecutionsOverlap", "The execution that was due at %s begins while earlier ones have not ended (%d of them); "+
				"they run beside each other. If they must not, let the schedule leave more time", at, unfinished)
		}
		e := job.NewExecution(name, job.Template, now)
		e.Due = due.At
		due.Start = &e
	}
	return due, nil
}

func countUnfinished(executions []resource.Execution) (n int) {
	for _, e := range executions {
		if !e.Over() {
			n++
		}
	}
	return n
}
