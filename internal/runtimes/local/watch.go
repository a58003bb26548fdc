package local

import (
	"context"

	"penstock/internal/resource"
)

// watcher holds the changes that one caller of Watch has not received yet: each revision once, in the order of its
// first change. The engine's mu guards its fields.
type watcher struct {
	order []resource.ID
	has   map[string]bool
	some  chan struct{}
}

// Watch implements runtimes.Runtime.
func (e *Engine) Watch(ctx context.Context) <-chan resource.ID {
	w := &watcher{has: map[string]bool{}, some: make(chan struct{}, 1)}
	e.mu.Lock()
	e.watchers[w] = struct{}{}
	e.mu.Unlock()
	out := make(chan resource.ID)
	// This goroutine ends with the caller's ctx.
	go func() {
		defer close(out)
		defer func() {
			e.mu.Lock()
			delete(e.watchers, w)
			e.mu.Unlock()
		}()
		for {
			id, ok := e.next(w)
			if !ok {
				select {
				case <-ctx.Done():
					return
				case <-w.some:
				}
				continue
			}
			select {
			case <-ctx.Done():
				return
			case out <- id:
			}
		}
	}()
	return out
}

func (e *Engine) next(w *watcher) (resource.ID, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(w.order) == 0 {
		return resource.ID{}, false
	}
	id := w.order[0]
	w.order = w.order[1:]
	delete(w.has, id.Key())
	return id, true
}

// changed notifies every watcher that a replica of the revision has changed. The caller holds mu.
func (e *Engine) changed(revision resource.ID) {
	key := revision.Key()
	for w := range e.watchers {
		if !w.has[key] {
			w.has[key] = true
			w.order = append(w.order, revision)
			poke(w.some)
		}
	}
}
