package local

import (
	"context"
	"sync"
)

// Watchers are the callers of a driver's Watch. Each caller receives every event from its Add on. Events are queued and
// never dropped, because after a lost exit nobody would restart the replica. They are few, and bounded by what
// containers do. The zero value has no callers.
type Watchers struct {
	mu  sync.Mutex
	all map[*Watcher]struct{}
}

// Watcher is one caller.
type Watcher struct {
	of   *Watchers
	some chan struct{}
	list []Event // guarded by of.mu
}

// Add registers a caller.
func (ws *Watchers) Add() *Watcher {
	w := &Watcher{of: ws, some: make(chan struct{}, 1)}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.all == nil {
		ws.all = map[*Watcher]struct{}{}
	}
	ws.all[w] = struct{}{}
	return w
}

// Send sends an event to all callers. It does not block.
func (ws *Watchers) Send(ev Event) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for w := range ws.all {
		w.list = append(w.list, ev)
		poke(w.some)
	}
}

// Any reports whether there is a caller.
func (ws *Watchers) Any() bool {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	return len(ws.all) > 0
}

// Deliver sends the caller's events to out until ctx ends or closed is closed. Then it closes out and removes the
// caller.
func (w *Watcher) Deliver(ctx context.Context, closed <-chan struct{}, out chan<- Event) {
	defer close(out)
	defer w.remove()
	for {
		select {
		case <-w.some:
		case <-ctx.Done():
			return
		case <-closed:
			return
		}
		for _, ev := range w.take() {
			select {
			case out <- ev:
			case <-ctx.Done():
				return
			case <-closed:
				return
			}
		}
	}
}

func (w *Watcher) take() []Event {
	w.of.mu.Lock()
	defer w.of.mu.Unlock()
	list := w.list
	w.list = nil
	return list
}

func (w *Watcher) remove() {
	w.of.mu.Lock()
	defer w.of.mu.Unlock()
	delete(w.of.all, w)
}
