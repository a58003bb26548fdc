package fake

import (
	"context"
	"sync"

	"penstock/internal/runtimes/local"
)

// watcher holds the events that one caller of Watch has not taken yet.
type watcher struct {
	some chan struct{}

	mu   sync.Mutex
	list []local.Event
}

// Watch implements local.Driver.
func (d *Driver) Watch(ctx context.Context) (<-chan local.Event, error) {
	w := &watcher{some: make(chan struct{}, 1)}
	d.mu.Lock()
	d.watchers[w] = struct{}{}
	d.mu.Unlock()
	out := make(chan local.Event)
	// This goroutine is the caller's: it ends with the caller's ctx.
	go func() {
		defer close(out)
		defer func() {
			d.mu.Lock()
			delete(d.watchers, w)
			d.mu.Unlock()
		}()
		for {
			select {
			case <-ctx.Done():
				return
			case <-w.some:
			}
			for _, ev := range w.take() {
				select {
				case <-ctx.Done():
					return
				case out <- ev:
				}
			}
		}
	}()
	return out, nil
}

func (w *watcher) take() []local.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := w.list
	w.list = nil
	return list
}

func (d *Driver) send(ev local.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for w := range d.watchers {
		w.mu.Lock()
		w.list = append(w.list, ev)
		w.mu.Unlock()
		select {
		case w.some <- struct{}{}:
		default:
		}
	}
}
