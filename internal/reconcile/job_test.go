package reconcile_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"penstock/internal/resource"
	"penstock/internal/runtimes/fake"
	"penstock/internal/store"
)

var batch = resource.JobID("s", "g", "batch")

// writeJob writes the job as a user would.
func (w *world) writeJob(change func(j *resource.Job)) {
	w.t.Helper()
	_, err := w.store.Jobs().Put(w.t.Context(), batch, func(j *resource.Job, exists bool) error {
		if !exists {
			j.ID, j.Environment, j.ScheduledFrom = batch, environment, time.Now().UTC()
			j.Configuration = resource.JobConfiguration{
				Trigger: resource.TriggerManual, ExecutionPolicy: resource.ExecutionPolicy{Timeout: time.Hour, Parallelism: 1, Completions: 1},
			}
			j.Template = resource.Template{
				Grace:      10 * time.Second,
				Containers: []resource.Container{{Name: "work", Image: fake.Done, Resources: resource.Resources{MilliCPU: 250, Memory: 512 << 20}}},
			}
		}
		change(j)
		j.Generation++
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.reconciler.Touch(batch)
	w.until("the job is written", func() bool {
		j, err := w.store.Jobs().Get(w.t.Context(), batch)
		return err == nil && j.Observed == j.Generation && j.Provisioning() == resource.Succeeded
	})
}

// startJob begins an execution as a user would.
func (w *world) startJob(name string) {
	w.t.Helper()
	j, err := w.store.Jobs().Get(w.t.Context(), batch)
	if err != nil {
		w.t.Fatal(err)
	}
	e := j.NewExecution(name, j.Template, time.Now().UTC())
	if _, _, err := w.store.Executions().Create(w.t.Context(), e, nil); err != nil {
		w.t.Fatal(err)
	}
	w.reconciler.Touch(batch)
}

func (w *world) execution(name string) resource.Execution {
	w.t.Helper()
	e, err := w.store.Executions().Get(w.t.Context(), batch.Child("executions", name))
	if err != nil {
		w.t.Fatal(err)
	}
	return e
}

// over waits for the end of an execution, and for the machine to have nothing of it.
func (w *world) over(name string) (e resource.Execution) {
	w.t.Helper()
	w.until(name+" is over and gone from the machine", func() bool {
		e = w.execution(name)
		return e.Over() && len(w.running(name)) == 0
	})
	return e
}

func (w *world) allExecutions() (names []string) {
	w.t.Helper()
	all, err := w.store.Executions().List(w.t.Context(), store.Scope{Parent: batch})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range all {
		names = append(names, e.Name())
	}
	return names
}

// reasons are those of the events of one execution that this package tells, in their order.
func (w *world) reasons(execution string) (list []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.events {
		if e.Revision == execution && e.App.Key() == batch.Key() {
			list = append(list, e.Reason)
		}
	}
	return list
}

func TestExecutionSucceeds(t *testing.T) {
	w := newWorld(t)
	w.writeJob(func(j *resource.Job) { j.Configuration.Parallelism, j.Configuration.Completions = 2, 5 })
	w.startJob("batch-a")
	e := w.over("batch-a")
	if e.State != resource.ExecutionSucceeded || e.Reason != "Completed" || e.Message != "Execution has successfully completed" || len(e.Replicas) != 5 {
		t.Errorf("got %s (%s: %s) with %d replicas, want a success of 5", e.State, e.Reason, e.Message, len(e.Replicas))
	}
	begun := 0
	for i, r := range e.Replicas {
		if !r.Succeeded || r.Started.IsZero() || r.Ended.Before(r.Started) || len(r.Containers) != 1 || r.Containers[0].LastExit.Code != 0 {
			t.Errorf("replica %+v, want it to have succeeded", r)
		}
		if rest, ok := strings.CutPrefix(r.Name, "batch-a-"); !ok || len(rest) != 5 {
			t.Errorf("replica name %q, want batch-a- and five letters and digits", r.Name)
		}
		// No more than two at a time: of any three the last began after one had ended.
		if i >= 2 && r.Started.Before(e.Replicas[i-2].Ended) && r.Started.Before(e.Replicas[i-1].Ended) {
			t.Errorf("three replicas ran at a time: %+v", e.Replicas[i-2:i+1])
		}
	}
	for _, reason := range w.reasons("batch-a") {
		if reason == "SuccessfulCreate" {
			begun++
		}
	}
	if all := w.reasons("batch-a"); begun != 5 || all[0] != "SuccessfulCreate" || !slices.Contains(all, "Completed") {
		t.Errorf("events %v", all)
	}
}

func TestExecutionIsRetried(t *testing.T) {
	for name, test := range map[string]struct {
		retries, want int
		message       string
	}{
		"never":     {0, 1, "Execution has failed: a replica has failed, with a retry limit of 0; the last: container 'work' ended with exit code 3 (Error)"},
		"two times": {2, 3, "Execution has failed: 3 replicas have failed, with a retry limit of 2; the last: container 'work' ended with exit code 3 (Error)"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.writeJob(func(j *resource.Job) {
				j.Configuration.Retries, j.Template.Containers[0].Image = test.retries, fake.Exit
			})
			w.startJob("batch-a")
			e := w.over("batch-a")
			if e.State != resource.ExecutionFailed || e.Reason != "BackoffLimitExceeded" || e.Message != test.message || len(e.Replicas) != test.want {
				t.Fatalf("got %s (%s: %s) with %d replicas", e.State, e.Reason, e.Message, len(e.Replicas))
			}
			pause := 20 * time.Millisecond
			for i := 1; i < len(e.Replicas); i++ {
				if waited := e.Replicas[i].Started.Sub(e.Replicas[i-1].Ended); waited < pause {
					t.Errorf("try %d came after %s, want %s at least", i+1, waited, pause)
				}
				pause *= 2
			}
		})
	}
}

// When an execution has failed for good, what still runs of it is ended.
func TestExecutionFailsWhileOthersRun(t *testing.T) {
	w := newWorld(t)
	w.writeJob(func(j *resource.Job) {
		j.Configuration.Parallelism, j.Configuration.Completions = 2, 2
		j.Template.Containers[0].Image = fake.Echo
	})
	w.startJob("batch-a")
	w.until("two replicas run", func() bool {
		return w.execution("batch-a").State == resource.ExecutionRunning && len(w.running("batch-a")) == 2
	})
	var victim string
	w.until("a victim", func() bool {
		all, err := w.engine.Replicas(t.Context())
		if err != nil || len(all) != 2 || all[0].State != resource.ReplicaReady || all[1].State != resource.ReplicaReady {
			return false
		}
		victim = all[0].Name
		return true
	})
	w.driver.Crash(victim, 9)
	e := w.over("batch-a")
	if e.State != resource.ExecutionFailed || len(e.Replicas) != 2 ||
		e.Message != "Execution has failed: a replica has failed, with a retry limit of 0; the last: container 'work' ended with exit code 9 (Error)" {
		t.Fatalf("got %s (%s) with %+v", e.State, e.Message, e.Replicas)
	}
	for _, r := range e.Replicas {
		if want := map[bool]string{true: "container 'work' ended with exit code 9 (Error)", false: "ended with its execution"}[r.Name == victim]; r.Reason != want || r.Ended.IsZero() {
			t.Errorf("replica %s: %q, want %q", r.Name, r.Reason, want)
		}
	}
}

func TestExecutionIsStopped(t *testing.T) {
	w := newWorld(t)
	w.writeJob(func(j *resource.Job) { j.Template.Containers[0].Image = fake.Echo })
	w.startJob("batch-a")
	w.until("it runs", func() bool { return w.execution("batch-a").State == resource.ExecutionRunning })
	_, err := w.store.Executions().Put(t.Context(), batch.Child("executions", "batch-a"), func(e *resource.Execution, _ bool) error {
		e.StopAsked = time.Now().UTC()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	w.reconciler.Touch(batch)
	if e := w.over("batch-a"); e.State != resource.ExecutionStopped || e.Replicas[0].Succeeded {
		t.Errorf("got %s, %+v", e.State, e.Replicas)
	}
	if reasons := w.reasons("batch-a"); slices.Contains(reasons, "ReplicaFailed") {
		t.Errorf("events %v, want no failure told", reasons)
	}
}

func TestExecutionThatCannotBegin(t *testing.T) {
	tests := map[string]struct {
		change  func(*resource.Job)
		reason  string
		message string
	}{
		"no image":                 {func(j *resource.Job) { j.Template.Containers[0].Image = "fake/none" }, "ImageNotFound", "fake/none"},
		"larger than this machine": {func(j *resource.Job) { j.Template.Containers[0].Resources.Memory = 2 * room }, "TooLarge", "larger than this machine"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.writeJob(test.change)
			w.startJob("batch-a")
			e := w.over("batch-a")
			if e.State != resource.ExecutionFailed || e.Reason != test.reason || !strings.Contains(e.Message, test.message) {
				t.Errorf("got %s (%s: %s)", e.State, e.Reason, e.Message)
			}
		})
	}
}

// What runs while this process ends is adopted, and not begun twice.
func TestExecutionOverARestart(t *testing.T) {
	w := newWorld(t)
	w.writeJob(func(j *resource.Job) { j.Template.Containers[0].Image = fake.Echo })
	w.startJob("batch-a")
	w.until("it runs", func() bool { return w.execution("batch-a").State == resource.ExecutionRunning })
	before := w.running("batch-a")
	w.stop()
	w.start()
	w.writeJob(func(j *resource.Job) { j.Tags = map[string]string{"a": "b"} }) // reconciled for sure
	if after := w.running("batch-a"); len(after) != 1 || after[0] != before[0] {
		t.Fatalf("got %v, want %v", after, before)
	}
	w.driver.Crash(before[0], 0)
	if e := w.over("batch-a"); e.State != resource.ExecutionSucceeded || len(e.Replicas) != 1 {
		t.Errorf("got %s with %+v", e.State, e.Replicas)
	}
}

// A replica that was removed from outside may have done half of its work: that is a failure, and tried again if it may.
func TestExecutionWhoseReplicaIsLost(t *testing.T) {
	w := newWorld(t)
	w.writeJob(func(j *resource.Job) {
		j.Configuration.Retries = 1
		j.Template.Containers[0].Image = fake.Echo
	})
	w.startJob("batch-a")
	w.until("it runs", func() bool { return w.execution("batch-a").State == resource.ExecutionRunning })
	first := w.running("batch-a")[0]
	if err := w.engine.Remove(t.Context(), batch.Child("executions", "batch-a")); err != nil {
		t.Fatal(err)
	}
	w.until("another try", func() bool {
		return slices.ContainsFunc(w.running("batch-a"), func(name string) bool { return name != first })
	})
	if e := w.execution("batch-a"); len(e.Replicas) != 2 || e.Replicas[0].Succeeded || e.Replicas[0].Reason == "" {
		t.Errorf("got %+v", e.Replicas)
	}
}

func TestSchedule(t *testing.T) {
	now := time.Now().UTC()
	daily := func(at time.Time) string { return at.Format("4 15") + " * * *" }
	tests := map[string]struct {
		cron  string
		since time.Time
		begun int
		told  string
	}{
		"the newest of many that were missed":   {"* * * * *", now.Add(-30 * time.Minute), 1, "ScheduleMissed"},
		"one that was missed not long ago":      {daily(now.Add(-10 * time.Minute)), now.Add(-time.Hour), 1, "ExecutionLate"},
		"one that was missed too long ago":      {daily(now.Add(-2 * time.Hour)), now.Add(-3 * time.Hour), 0, "ScheduleMissed"},
		"times before the schedule was written": {daily(now.Add(-10 * time.Minute)), now, 0, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.writeJob(func(j *resource.Job) {
				j.Configuration.Trigger, j.Configuration.Cron, j.ScheduledFrom = resource.TriggerSchedule, test.cron, test.since
			})
			for range 3 { // it is begun once, however often it is looked at
				w.stop()
				w.start()
				w.writeJob(func(*resource.Job) {})
			}
			names := w.allExecutions()
			// A minute may have passed.
			if len(names) < test.begun || len(names) > test.begun+1 || test.begun == 0 && len(names) > 0 {
				t.Fatalf("begun: %v, want %d", names, test.begun)
			}
			for _, name := range names {
				e := w.over(name)
				if e.Name() != resource.ScheduledName("batch", e.Due) || e.State != resource.ExecutionSucceeded {
					t.Errorf("got %+v", e)
				}
			}
			if test.told != "" && !w.saw(test.told) {
				t.Errorf("want an event %s", test.told)
			}
		})
	}
}

func TestSuspendedScheduleBeginsNothing(t *testing.T) {
	w := newWorld(t)
	w.writeJob(func(j *resource.Job) {
		j.Configuration.Trigger, j.Configuration.Cron, j.ScheduledFrom = resource.TriggerSchedule, "* * * * *", time.Now().Add(-time.Hour)
		j.Suspended = true
	})
	if names := w.allExecutions(); len(names) > 0 {
		t.Errorf("begun: %v", names)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	w := newWorld(t)
	w.writeJob(func(*resource.Job) {})
	old := time.Now().Add(-24 * time.Hour).UTC()
	for i := range 205 {
		e := resource.Execution{ID: batch.Child("executions", fmt.Sprintf("batch-%03d", i)), Created: old.Add(time.Duration(i) * time.Second)}
		e.Ended = old.Add(time.Hour)
		e.State = []resource.ExecutionState{resource.ExecutionSucceeded, resource.ExecutionFailed}[i%2]
		if i == 1 {
			e.State = resource.ExecutionStopped
		}
		if _, _, err := w.store.Executions().Create(t.Context(), e, nil); err != nil {
			t.Fatal(err)
		}
	}
	w.writeJob(func(*resource.Job) {})
	w.until("200 are left", func() bool { return len(w.allExecutions()) == 200 })
	// 103 successes, 102 others.
	if names := w.allExecutions(); !slices.Equal(names[:3], []string{"batch-005", "batch-006", "batch-007"}) {
		t.Errorf("the oldest left are %v", names[:3])
	}
}

func TestJobIsDeletedWithWhatRuns(t *testing.T) {
	w := newWorld(t)
	w.writeJob(func(j *resource.Job) { j.Template.Containers[0].Image = fake.Echo })
	w.startJob("batch-a")
	w.until("it runs", func() bool { return w.execution("batch-a").State == resource.ExecutionRunning })
	if _, err := w.store.Jobs().Put(t.Context(), batch, func(j *resource.Job, _ bool) error { j.Deleted = time.Now(); return nil }); err != nil {
		t.Fatal(err)
	}
	w.reconciler.Touch(batch)
	w.until("the job has gone", func() bool {
		_, err := w.store.Jobs().Get(t.Context(), batch)
		return err != nil && len(w.running("batch-a")) == 0 && len(w.allExecutions()) == 0
	})
}
