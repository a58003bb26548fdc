package jobplan_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"penstock/internal/jobplan"
	"penstock/internal/resource"
)

func onEvents(least, most int) resource.Job {
	j := scheduled("")
	j.Configuration.Trigger = resource.TriggerEvent
	j.Configuration.Scale = resource.JobScale{Min: least, Max: most}
	return j
}

func TestEvents(t *testing.T) {
	type counts struct{ running, endedBefore, endedAfter int }
	tests := map[string]struct {
		least, most int
		demand      int
		have        counts
		change      func(*resource.Job)
		want        int
	}{
		"one for each":                             {0, 100, 5, counts{}, nil, 5},
		"those that run are not started again":     {0, 100, 5, counts{running: 3}, nil, 2},
		"those that ended are not counted":         {0, 100, 5, counts{endedBefore: 9}, nil, 5},
		"those that ended since are part of it":    {0, 100, 5, counts{running: 1, endedAfter: 3}, nil, 1},
		"more run than are wanted":                 {0, 100, 2, counts{running: 5}, nil, 0},
		"nothing to do":                            {0, 100, 0, counts{}, nil, 0},
		"maxExecutions":                            {0, 4, 50, counts{running: 1}, nil, 3},
		"minExecutions":                            {2, 10, 0, counts{running: 1}, nil, 1},
		"minExecutions in addition to events":      {2, 10, 3, counts{}, nil, 5},
		"minExecutions and events, up to the most": {2, 4, 30, counts{}, nil, 4},
		"the limit of unfinished executions":       {0, 1000, 1000, counts{running: 90}, nil, 10},
		"a demand beyond all numbers":              {2, 7, 1<<63 - 1, counts{}, nil, 7},
		"a demand below zero":                      {0, 7, -5, counts{}, nil, 0},
		"suspended":                                {2, 100, 5, counts{}, func(j *resource.Job) { j.Suspended = true }, 0},
		"another trigger":                          {2, 100, 5, counts{}, func(j *resource.Job) { j.Configuration.Trigger = resource.TriggerManual }, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			j := onEvents(test.least, test.most)
			if test.change != nil {
				test.change(&j)
			}
			asked := start.Add(time.Minute)
			var have []resource.Execution
			add := func(n int, ended time.Time) {
				for range n {
					e := j.NewExecution(fmt.Sprintf("batch-%d", len(have)), resource.Template{}, start)
					e.Ended = ended
					have = append(have, e)
				}
			}
			add(test.have.running, time.Time{})
			add(test.have.endedBefore, asked.Add(-time.Second))
			add(test.have.endedAfter, asked.Add(time.Second))
			names := 0 // the first ones are taken
			got := jobplan.Events(j, have, jobplan.Demand{Executions: test.demand, At: asked}, func() string { names++; return fmt.Sprintf("batch-%d", names-1) }, asked.Add(time.Minute))
			if len(got) != test.want {
				t.Errorf("%d start, want %d", len(got), test.want)
			}
			seen := map[string]bool{}
			for _, e := range append(have, got...) {
				if seen[e.Name()] {
					t.Errorf("%s starts twice", e.Name())
				}
				seen[e.Name()] = true
			}
		})
	}
}

// One execution starts for each message of a queue, whenever the server is killed: none finds the queue empty, and no
// message is left. The queue counts a message until an execution has deleted it.
func TestEventsOverKills(t *testing.T) {
	kills, ran := 0, 0
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 2))
		job := onEvents(0, 1+random.IntN(12))
		var executions []resource.Execution // as stored
		var deletes []time.Time             // when each deletes its message
		queue, sent, names := 0, 0, 0
		now := start
		pass := func(d time.Duration) {
			now = now.Add(d)
			for i := range executions {
				if at := deletes[i]; !at.IsZero() && !at.After(now) {
					if queue == 0 {
						t.Fatalf("seed %d: %s found no message", seed, executions[i].Name())
					}
					queue--
					deletes[i] = time.Time{}
					executions[i].Ended = at.Add(time.Duration(random.IntN(3)) * time.Millisecond) // it ends after the message is gone
				}
			}
		}
		for round := 0; round < 200 || queue > 0 && round < 5000; round++ {
			if round < 200 && random.IntN(3) == 0 {
				n := random.IntN(8)
				queue, sent = queue+n, sent+n
			}
			d := jobplan.Demand{At: now}
			pass(time.Duration(random.IntN(2)) * time.Second) // the source is slow to answer
			d.Executions = queue
			pass(time.Duration(random.IntN(2)) * time.Second) // and so is reconcile
			survives := random.IntN(6)
			for i, e := range jobplan.Events(job, executions, d, func() string { names++; return fmt.Sprintf("batch-%d", names) }, now) {
				if random.IntN(4) == 0 && i == survives {
					kills++ // the rest is not stored
					break
				}
				executions = append(executions, e)
				deletes = append(deletes, now.Add(time.Duration(1+random.IntN(20))*time.Second))
			}
			pass(time.Duration(random.IntN(10)) * time.Second)
		}
		if queue != 0 || len(executions) != sent {
			t.Fatalf("seed %d: %d executions for %d messages, %d of which are left", seed, len(executions), sent, queue)
		}
		ran += len(executions)
	}
	t.Logf("%d kills, %d executions", kills, ran)
	if kills < 500 || ran < 5000 {
		t.Errorf("%d kills and %d executions prove little", kills, ran)
	}
}
