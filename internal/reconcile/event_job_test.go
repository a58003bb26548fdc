package reconcile_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"penstock/internal/resource"
	"penstock/internal/store"
)

// queue is a source of events. Each execution takes a message and deletes it before it ends.
type queue struct {
	scaler
	w        *world
	messages int
	asked    bool // since the last answer
}

func (q *queue) Demand(resource.Job, resource.Settings) (int, time.Time, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.asked {
		return 0, time.Time{}, false
	}
	q.asked = false
	at := time.Now()
	deleted := map[string]bool{}
	for _, e := range q.w.listExecutions() {
		if e.Over() {
			deleted[e.Name()] = true
		}
	}
	replicas, err := q.w.engine.Replicas(context.Background())
	if err != nil {
		return 0, time.Time{}, false // it is being stopped
	}
	for _, r := range replicas {
		if r.State == resource.ReplicaSucceeded {
			deleted[r.Revision.Base()] = true // nobody has seen it yet
		}
	}
	return q.messages - len(deleted), at, true
}

func (w *world) listExecutions() []resource.Execution {
	list, err := w.store.Executions().List(context.Background(), store.Scope{Parent: batch})
	if err != nil {
		w.t.Error(err)
	}
	return list
}

// poll makes the source be asked again and again, as autoscale does, until stop is called.
func (q *queue) poll(w *world) (stop func()) {
	ended := make(chan struct{})
	var polling sync.WaitGroup
	polling.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				q.mu.Lock()
				q.asked = true
				q.mu.Unlock()
				w.reconciler.Touch(batch)
			case <-ended:
				return
			}
		}
	})
	return func() { close(ended); polling.Wait() }
}

func TestEventsStartOneExecutionForEachMessage(t *testing.T) {
	q := &queue{scaler: scaler{forgotten: map[string]bool{}}}
	w := newWorld(t, func(w *world) { w.scale, q.w = q, w })
	w.writeJob(func(j *resource.Job) {
		j.Configuration.Trigger = resource.TriggerEvent
		j.Configuration.Scale = resource.JobScale{Max: 4, Polling: time.Second}
	})
	const messages = 12
	q.mu.Lock()
	q.messages = messages
	q.mu.Unlock()
	stop := q.poll(w)
	defer func() { stop() }()
	restarts := 0
	w.until("an execution for each message", func() bool {
		over := 0
		list := w.listExecutions()
		for _, e := range list {
			if e.Over() {
				over++
			}
		}
		if running := len(list) - over; running > 4 {
			t.Fatalf("%d executions run at a time, want at most 4", running)
		}
		if restarts < 3 && over > 2+3*restarts { // control ends while executions start and run
			restarts++
			stop()
			w.stop()
			w.start()
			stop = q.poll(w)
		}
		return over >= messages
	})
	time.Sleep(100 * time.Millisecond) // some more polls, of an empty queue
	if n := len(w.listExecutions()); n != messages {
		t.Errorf("%d executions for %d messages", n, messages)
	}
	if restarts != 3 {
		t.Errorf("control was restarted %d times, want 3", restarts)
	}
	w.writeJob(func(j *resource.Job) { j.Suspended = true })
	w.until("the events of a suspended job are not watched", func() bool {
		q.mu.Lock()
		defer q.mu.Unlock()
		return q.forgotten["batch"]
	})
}
