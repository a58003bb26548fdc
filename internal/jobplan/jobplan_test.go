package jobplan_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"penstock/internal/jobplan"
	"penstock/internal/resource"
)

var start = time.Date(2026, 3, 2, 10, 0, 30, 0, time.UTC)

// scheduled returns a job that has had a schedule since start.
func scheduled(cron string) resource.Job {
	j := resource.Job{Meta: resource.Meta{ID: resource.JobID("s", "g", "batch")}, ScheduledFrom: start}
	j.Configuration = resource.JobConfiguration{
		Trigger: resource.TriggerSchedule, Cron: cron,
		ExecutionPolicy: resource.ExecutionPolicy{Timeout: time.Hour, Parallelism: 1, Completions: 1},
	}
	return j
}

// replica returns what an engine reports. ended is zero for a replica that runs.
func replica(name string, state resource.ReplicaState, started, ended time.Time) resource.Replica {
	c := resource.ContainerStatus{Name: "work", Started: started}
	if !ended.IsZero() {
		c.LastExit = &resource.Exit{At: ended}
	}
	return resource.Replica{Name: name, State: state, Reason: map[bool]string{true: "exit code 3"}[state == resource.ReplicaFailed], Containers: []resource.ContainerStatus{c}}
}

func TestSchedule(t *testing.T) {
	at := func(clock string) time.Time {
		parsed, err := time.Parse(time.TimeOnly, clock)
		if err != nil {
			t.Fatal(err)
		}
		return time.Date(2026, 3, 2, parsed.Hour(), parsed.Minute(), parsed.Second(), 0, time.UTC)
	}
	running := func(n int) (all []resource.Execution) {
		for i := range n {
			all = append(all, scheduled("* * * * *").NewExecution(fmt.Sprintf("batch-%d", i), resource.Template{}, start))
		}
		return all
	}
	ended := running(1)
	ended[0].State, ended[0].Ended = resource.ExecutionSucceeded, start.Add(time.Minute)
	tests := map[string]struct {
		cron       string
		change     func(*resource.Job)
		executions []resource.Execution
		now        time.Time
		due, next  time.Time
		starts     bool
		warnings   string
	}{
		"not due yet":              {cron: "0 11 * * *", now: at("10:59:59"), next: at("11:00:00")},
		"due now":                  {cron: "0 11 * * *", now: at("11:00:00"), due: at("11:00:00"), next: at("11:00:00").AddDate(0, 0, 1), starts: true},
		"due a moment ago":         {cron: "0 * * * *", now: at("11:00:59"), due: at("11:00:00"), next: at("12:00:00"), starts: true},
		"late":                     {cron: "0 * * * *", now: at("11:01:00"), due: at("11:00:00"), next: at("12:00:00"), starts: true, warnings: "ExecutionLate"},
		"missed two of three":      {cron: "*/10 * * * *", now: at("10:30:05"), due: at("10:30:00"), next: at("10:40:00"), starts: true, warnings: "ScheduleMissed"},
		"as late as can be":        {cron: "0 11 * * *", now: at("12:00:00"), due: at("11:00:00"), next: at("11:00:00").AddDate(0, 0, 1), starts: true, warnings: "ExecutionLate"},
		"too late":                 {cron: "0 11 * * *", now: at("12:00:01"), due: at("11:00:00"), next: at("11:00:00").AddDate(0, 0, 1), warnings: "ScheduleMissed"},
		"handled already":          {cron: "0 * * * *", change: func(j *resource.Job) { j.LastDue = at("11:00:00") }, now: at("11:30:00"), next: at("12:00:00")},
		"an older schedule":        {cron: "0 * * * *", change: func(j *resource.Job) { j.LastDue = start.Add(-time.Hour) }, now: at("10:30:00"), next: at("11:00:00")},
		"stored before a crash":    {cron: "0 * * * *", executions: []resource.Execution{scheduled("").NewExecution(resource.ScheduledName("batch", at("11:00:00")), resource.Template{}, start)}, now: at("11:00:05"), due: at("11:00:00"), next: at("12:00:00")},
		"99 have not ended":        {cron: "0 * * * *", executions: running(resource.MaxUnfinished - 1), now: at("11:00:05"), due: at("11:00:00"), next: at("12:00:00"), starts: true, warnings: "ExecutionsOverlap"},
		"the one before has ended": {cron: "0 * * * *", executions: ended, now: at("11:00:05"), due: at("11:00:00"), next: at("12:00:00"), starts: true},
		"100 have not ended":       {cron: "0 * * * *", executions: running(resource.MaxUnfinished), now: at("11:00:05"), due: at("11:00:00"), next: at("12:00:00"), warnings: "ExecutionSkipped"},
		"suspended":                {cron: "0 * * * *", change: func(j *resource.Job) { j.Suspended = true }, now: at("11:00:05")},
		"started by users alone":   {cron: "0 * * * *", change: func(j *resource.Job) { j.Configuration.Trigger = resource.TriggerManual }, now: at("11:00:05")},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			job := scheduled(test.cron)
			if test.change != nil {
				test.change(&job)
			}
			due, err := jobplan.Schedule(job, test.executions, test.now)
			if err != nil {
				t.Fatal(err)
			}
			if due.At != test.due || due.Next != test.next || (due.Start != nil) != test.starts {
				t.Errorf("got due %s, next %s, start %v; want %s, %s, %t", due.At, due.Next, due.Start, test.due, test.next, test.starts)
			}
			if e := due.Start; e != nil && (e.Due != test.due || e.Created != test.now || e.Name() != resource.ScheduledName("batch", test.due)) {
				t.Errorf("started: %+v", e)
			}
			var reasons []string
			for _, w := range due.Warnings {
				reasons = append(reasons, w.Reason)
			}
			if got := strings.Join(reasons, " "); got != test.warnings {
				t.Errorf("warnings: got %q, want %q", got, test.warnings)
			}
		})
	}
}

func TestScheduleThatCannotBeRead(t *testing.T) {
	if _, err := jobplan.Schedule(scheduled("61 * * * *"), nil, start); err == nil || !strings.Contains(err.Error(), "job batch: minute") {
		t.Errorf("got %v, want an error that names the job and the field", err)
	}
}

// trial is one execution in virtual time.
type trial struct {
	t      *testing.T
	e      resource.Execution
	listed []resource.Replica
	names  int
}

func newTrial(t *testing.T, policy resource.ExecutionPolicy) *trial {
	e := scheduled("").NewExecution("batch-a", resource.Template{}, start)
	e.Policy = policy
	return &trial{t: t, e: e}
}

// at looks at the execution so many seconds after start, and lets the engine start what is asked for.
func (r *trial) at(seconds int) jobplan.Step {
	r.t.Helper()
	now := start.Add(time.Duration(seconds) * time.Second)
	before := r.e
	before.Replicas = slices.Clone(r.e.Replicas)
	next, step := jobplan.Advance(r.e, r.listed, jobplan.Backoff{}, now, func() string { r.names++; return fmt.Sprintf("r%d", r.names) })
	if !reflect.DeepEqual(r.e, before) {
		r.t.Error("Advance changed its argument")
	}
	r.e = next
	for _, name := range step.Replicas {
		if !slices.Contains(step.Begun, name) {
			r.listed = append(r.listed, replica(name, resource.ReplicaReady, now, time.Time{}))
		}
	}
	return step
}

// ends ends a replica so many seconds after start.
func (r *trial) ends(name string, state resource.ReplicaState, seconds int) {
	i := slices.IndexFunc(r.listed, func(l resource.Replica) bool { return l.Name == name })
	r.listed[i] = replica(name, state, r.listed[i].Containers[0].Started, start.Add(time.Duration(seconds)*time.Second))
}

func (r *trial) want(step jobplan.Step, created []string, wake int, state resource.ExecutionState) {
	r.t.Helper()
	var at time.Time
	if wake > 0 {
		at = start.Add(time.Duration(wake) * time.Second)
	}
	if !slices.Equal(step.Created, created) || step.Wake != at || r.e.State != state {
		r.t.Errorf("got replicas %v, wake %s, state %s; want %v, %s, %s", step.Created, step.Wake, r.e.State, created, at, state)
	}
}

func TestNoMoreRunThanSuccessesAreMissing(t *testing.T) {
	r := newTrial(t, resource.ExecutionPolicy{Parallelism: 2, Completions: 3})
	r.want(r.at(0), []string{"r1", "r2"}, 0, resource.ExecutionProcessing)
	r.want(r.at(1), nil, 0, resource.ExecutionRunning)
	r.ends("r1", resource.ReplicaSucceeded, 2)
	r.want(r.at(3), []string{"r3"}, 0, resource.ExecutionRunning)
	r.ends("r2", resource.ReplicaSucceeded, 4)
	r.want(r.at(5), nil, 0, resource.ExecutionRunning)
	r.ends("r3", resource.ReplicaSucceeded, 6)
	step := r.at(7)
	r.want(step, nil, 0, resource.ExecutionSucceeded)
	if !step.Remove || r.e.Reason != "Completed" || r.e.Ended != start.Add(7*time.Second) || r.e.Replicas[2].Ended != start.Add(6*time.Second) {
		t.Errorf("got %+v, %+v", step, r.e)
	}
}

func TestFailedReplicaIsRetriedAfterAPause(t *testing.T) {
	r := newTrial(t, resource.ExecutionPolicy{Parallelism: 1, Completions: 1, Retries: 9})
	now := 0
	r.want(r.at(now), []string{"r1"}, 0, resource.ExecutionProcessing)
	for i, pause := range []int{10, 20, 40, 80, 160, 320, 360, 360} {
		now++
		r.ends(fmt.Sprintf("r%d", i+1), resource.ReplicaFailed, now)
		step := r.at(now)
		r.want(step, nil, now+pause, resource.ExecutionRunning)
		if len(step.Failed) != 1 || step.Failed[0].Reason != "exit code 3" {
			t.Errorf("failed: got %+v", step.Failed)
		}
		r.want(r.at(now+pause-1), nil, now+pause, resource.ExecutionRunning)
		now += pause
		r.want(r.at(now), []string{fmt.Sprintf("r%d", i+2)}, 0, resource.ExecutionRunning)
	}
}

func TestExecutionFailsWhenItsRetriesAreUsedUp(t *testing.T) {
	r := newTrial(t, resource.ExecutionPolicy{Parallelism: 2, Completions: 2})
	r.at(0)
	r.at(1)
	r.ends("r1", resource.ReplicaFailed, 2)
	step := r.at(2)
	r.want(step, nil, 0, resource.ExecutionDegraded)
	if !step.Remove || len(step.Failed) != 1 || r.e.Over() {
		t.Fatalf("got %+v, %+v; want the other replica removed first", step, r.e)
	}
	r.ends("r2", resource.ReplicaFailed, 3)
	step = r.at(3)
	r.want(step, nil, 0, resource.ExecutionFailed)
	if want := "Execution has failed: a replica has failed, with a retry limit of 0; the last: exit code 3"; len(step.Failed) > 0 || r.e.Message != want || r.e.Reason != "BackoffLimitExceeded" {
		t.Errorf("got %+v, %s: %s; want %s", step.Failed, r.e.Reason, r.e.Message, want)
	}
}

func TestStoppedExecutionEndsAfterItsReplicas(t *testing.T) {
	r := newTrial(t, resource.ExecutionPolicy{Parallelism: 1, Completions: 1})
	r.at(0)
	r.at(1)
	r.e.StopAsked = start.Add(2 * time.Second)
	if step := r.at(2); !step.Remove || r.e.Over() {
		t.Fatalf("got %+v, %+v; want the replica removed first", step, r.e)
	}
	r.listed = nil
	r.want(r.at(3), nil, 0, resource.ExecutionStopped)
	if r.e.Ended != start.Add(3*time.Second) || r.e.Replicas[0].Ended.IsZero() {
		t.Errorf("got %+v", r.e)
	}
}

// A replica that has run and is gone may have done a part of its work. It counts as failed and is not started again.
func TestReplicaThatIsGoneIsNotStartedAgain(t *testing.T) {
	r := newTrial(t, resource.ExecutionPolicy{Parallelism: 1, Completions: 1, Retries: 1})
	r.at(0)
	r.at(1)
	r.listed = nil
	step := r.at(2)
	r.want(step, nil, 12, resource.ExecutionRunning)
	if len(step.Replicas) > 0 || len(step.Failed) != 1 {
		t.Errorf("got %+v, want a failure and nothing to run", step)
	}
	r.want(r.at(12), []string{"r2"}, 0, resource.ExecutionRunning)
}

func TestReplicaThatWasNeverStartedIsAskedForAgain(t *testing.T) {
	r := newTrial(t, resource.ExecutionPolicy{Parallelism: 1, Completions: 1})
	r.at(0)
	r.listed = nil // the server was killed before the engine had it
	if step := r.at(1); !slices.Equal(step.Replicas, []string{"r1"}) || len(step.Begun)+len(step.Created) > 0 {
		t.Errorf("got %+v, want r1 asked for again", step)
	}
}

func TestTakenNamesAreNotUsedAgain(t *testing.T) {
	r := newTrial(t, resource.ExecutionPolicy{Parallelism: 2, Completions: 2})
	r.e.Replicas = []resource.ExecutionReplica{{Name: "r1", Ended: start, Succeeded: true}}
	r.want(r.at(0), []string{"r2"}, 0, resource.ExecutionProcessing)
}

func TestFail(t *testing.T) {
	r := newTrial(t, resource.ExecutionPolicy{Parallelism: 1, Completions: 1})
	r.at(0)
	e := jobplan.Fail(r.e, "TooLarge", "larger than this machine", start)
	if e.State != resource.ExecutionFailed || e.Reason != "TooLarge" || e.Ended != start || e.Replicas[0].Ended != start {
		t.Errorf("got %+v", e)
	}
	if !r.e.Replicas[0].Ended.IsZero() {
		t.Error("Fail changed its argument")
	}
}
