package reconcile

import (
	"context"
	"sync"
	"time"

	"penstock/internal/resource"
)

// queue hands out keys to work on. Each key is worked on once at a time, and again if it was touched in the meantime.
type queue struct {
	mu      sync.Mutex
	ready   []resource.ID
	waiting map[string]bool // in ready
	running map[string]bool // true: touched again since it began
	timers  map[string]alarm
	wake    chan struct{} // holds one value while ready is not empty
}

func newQueue() *queue {
	return &queue{
		waiting: map[string]bool{},
		running: map[string]bool{},
		timers:  map[string]alarm{},
		wake:    make(chan struct{}, 1),
	}
}

// touch queues id, or has it queued again when the current work on it ends.
func (q *queue) touch(id resource.ID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.add(id)
}

func (q *queue) add(id resource.ID) {
	key := id.Key()
	if t, ok := q.timers[key]; ok {
		t.Stop()
		delete(q.timers, key)
	}
	if _, ok := q.running[key]; ok {
		q.running[key] = true
		return
	}
	if q.waiting[key] {
		return
	}
	q.waiting[key] = true
	q.ready = append(q.ready, id)
	q.signal()
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// alarm touches a key at a time.
type alarm struct {
	*time.Timer
	at time.Time
}

// later touches id after d, unless it is touched before. Of two times the earlier one counts.
func (q *queue) later(id resource.ID, d time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	key, at := id.Key(), time.Now().Add(d)
	if t, ok := q.timers[key]; ok {
		if t.at.Before(at) {
			return
		}
		t.Stop()
	}
	q.timers[key] = alarm{time.AfterFunc(d, func() { q.touch(id) }), at}
}

// next waits for a key to work on. The caller must call done after the work.
func (q *queue) next(ctx context.Context) (resource.ID, bool) {
	for {
		q.mu.Lock()
		if len(q.ready) > 0 {
			id := q.ready[0]
			q.ready = q.ready[1:]
			delete(q.waiting, id.Key())
			q.running[id.Key()] = false
			if len(q.ready) > 0 {
				q.signal()
			}
			q.mu.Unlock()
			return id, true
		}
		q.mu.Unlock()
		select {
		case <-q.wake:
		case <-ctx.Done():
			return resource.ID{}, false
		}
	}
}

// done ends the work on id and queues it again if it was touched in the meantime.
func (q *queue) done(id resource.ID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	again := q.running[id.Key()]
	delete(q.running, id.Key())
	if again {
		q.add(id)
	}
}

// close stops the timers.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for key, t := range q.timers {
		t.Stop()
		delete(q.timers, key)
	}
}
