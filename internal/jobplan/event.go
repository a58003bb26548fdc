package jobplan

import (
	"time"

	"penstock/internal/resource"
)

// Demand is what the events of a job ask for.
type Demand struct {
	// Executions that should run, as many as there is work for.
	Executions int
	// At is when the events were asked. Executions that ended later were still part of the demand.
	At time.Time
}

// Events returns the executions that start for a demand, as KEDA's default strategy for a ScaledJob does: those that the
// demand and Min ask for, without those that run. A source counts its work until an execution has finished it. So one
// execution starts for each unit of work, and calling Events again after a crash, with a new demand, starts no second
// one. executions are all executions of the job that are stored.
func Events(job resource.Job, executions []resource.Execution, d Demand, newName func() string, now time.Time) (start []resource.Execution) {
	s := job.Configuration.Scale
	if job.Configuration.Trigger != resource.TriggerEvent || job.Suspended {
		return nil
	}
	unfinished, running := 0, 0
	taken := map[string]bool{}
	for _, e := range executions {
		taken[e.Name()] = true
		if !e.Over() {
			unfinished++
		}
		if !e.Over() || e.Ended.After(d.At) {
			running++
		}
	}
	missing := min(min(max(d.Executions, 0), s.Max)+s.Min, s.Max) - running
	missing = min(missing, resource.MaxUnfinished-unfinished)
	for len(start) < missing {
		name := newName()
		if taken[name] {
			continue
		}
		taken[name] = true
		start = append(start, job.NewExecution(name, job.Template, now))
	}
	return start
}
