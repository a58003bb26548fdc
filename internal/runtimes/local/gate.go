package local

import (
	"context"
	"slices"
	"sync"

	"penstock/internal/resource"
)

// gate limits how many containers are created at a time. Creating one uses all of the machine's processors. If two
// hundred are created at once, all of them are late. One after the other, the first serves after a tenth of a second
// and the last no later than before.
//
// Among those that wait, the one whose revision has the fewest replicas goes first, then the one that has waited
// longest. So a revision that starts from zero does not wait for another to grow. Those that enter with last set go
// when nobody else waits.
type gate struct {
	mu      sync.Mutex
	free    int
	inside  map[string]int // by revision
	waiting []*entry       // in order of arrival
}

type entry struct {
	revision string
	last     bool
	in       chan struct{} // closed when it may continue
}

func newGate(places int) *gate { return &gate{free: places, inside: map[string]int{}} }

// enter waits for a slot. If it returns nil, the caller must call leave.
func (g *gate) enter(ctx context.Context, revision string, last bool) error {
	g.mu.Lock()
	if g.free > 0 {
		g.free--
		g.inside[revision]++
		g.mu.Unlock()
		return nil
	}
	e := &entry{revision: revision, last: last, in: make(chan struct{})}
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
		g.leave(revision, nil) // it got a slot at the moment it gave up
	}
	return context.Cause(ctx)
}

// leave passes the slot on to another. replicas is the number of replicas of each revision.
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
		n := replicas[e.revision] + g.inside[e.revision]
		if chosen := g.waiting[best]; fewest < 0 || chosen.last && !e.last || chosen.last == e.last && n < fewest {
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
			if k.asleep() {
				continue
			}
			up[k.rev.ID.Key()]++
		}
	}
	return up
}
