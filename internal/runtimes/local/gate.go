package local

import (
	"context"
	"slices"
	"sync"

	"penstock/internal/resource"
)

// gate lets a few containers be made at a time. Making one is work for all of the machine's processors, so that of two
// hundred at once all are late, while one after another the first serves after a tenth of a second and the last no later.
//
// Of those who wait, whose revision has the fewest replicas goes first, and of these who has waited longest: a revision
// that comes up from zero does not wait for another to grow.
type gate struct {
	mu      sync.Mutex
	free    int
	inside  map[string]int // by revision
	waiting []*entry       // in the order of their coming
}

type entry struct {
	revision string
	in       chan struct{} // closed when it may go on
}

func newGate(places int) *gate { return &gate{free: places, inside: map[string]int{}} }

// enter waits for a place. The caller calls leave if it returned nil.
func (g *gate) enter(ctx context.Context, revision string) error {
	g.mu.Lock()
	if g.free > 0 {
		g.free--
		g.inside[revision]++
		g.mu.Unlock()
		return nil
	}
	e := &entry{revision: revision, in: make(chan struct{})}
	g.waiting = append(g.waiting, e)
	g.mu.Unlock()
	select {
	case <-e.in:
		return nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	i := slices.Index(g.waiting, e)
	if i >= 0 {
		g.waiting = slices.Delete(g.waiting, i, i+1)
	}
	g.mu.Unlock()
	if i < 0 {
		g.leave(revision, nil) // it was let in as it left
	}
	return context.Cause(ctx)
}

// leave gives the place to another. replicas says how many each revision has.
func (g *gate) leave(revision string, replicas map[string]int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside[revision]--; g.inside[revision] == 0 {
		delete(g.inside, revision)
	}
	if len(g.waiting) == 0 {
		g.free++
		return
	}
	best, fewest := 0, -1
	for i, e := range g.waiting {
		if n := replicas[e.revision] + g.inside[e.revision]; fewest < 0 || n < fewest {
			best, fewest = i, n
		}
	}
	next := g.waiting[best]
	g.waiting = slices.Delete(g.waiting, best, best+1)
	g.inside[next.revision]++
	close(next.in)
}

// replicasUp counts, by revision, the replicas whose containers run.
func (e *Engine) replicasUp() map[string]int {
	e.mu.Lock()
	defer e.mu.Unlock()
	up := map[string]int{}
	for _, k := range e.keepers {
		switch k.view.State {
		case resource.ReplicaStarting, resource.ReplicaUnready, resource.ReplicaReady:
			up[k.rev.ID.Key()]++
		}
	}
	return up
}
