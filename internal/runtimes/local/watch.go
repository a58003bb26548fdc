package local

import (
	"context"

	"penstock/internal/resource"
)

// watcher holds what one caller of Watch has not taken yet: each revision once, in the order of the first change. Its
// fields are guarded by the engine's mu.
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
	// This goroutine is the caller's: it ends with the caller's ctx.
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

// changed notes for every watcher that a replica of the revision is not what it was. The caller holds mu.
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
