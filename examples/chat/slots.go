package main

import (
	"context"
	"errors"
	"slices"
	"sync"
)

// errQueueFull is returned by acquire if the queue is full.
var errQueueFull = errors.New("all slots are busy and the queue is full")

// slots limits concurrent generations. Requests without a free slot wait and get one in order of arrival.
type slots struct {
	total, limit int

	mu      sync.Mutex
	free    int
	waiting []chan struct{} // the first is next; closed when it has its slot
}

// newSlots returns n slots with a queue of length limit.
func newSlots(n, limit int) *slots {
	return &slots{total: n, limit: limit, free: n}
}

// acquire waits for a slot, which the caller frees with release, or until ctx ends.
func (s *slots) acquire(ctx context.Context) (release func(), err error) {
	s.mu.Lock()
	if s.free > 0 {
		s.free--
		s.mu.Unlock()
		return s.release, nil
	}
	if len(s.waiting) >= s.limit {
		s.mu.Unlock()
		return nil, errQueueFull
	}
	turn := make(chan struct{})
	s.waiting = append(s.waiting, turn)
	s.mu.Unlock()

	select {
	case <-turn:
		return s.release, nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	i := slices.Index(s.waiting, turn)
	if i >= 0 {
		s.waiting = slices.Delete(s.waiting, i, i+1)
	}
	s.mu.Unlock()
	if i < 0 { // the slot was assigned at the same moment: pass it to the next
		s.release()
	}
	return nil, context.Cause(ctx)
}

func (s *slots) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		s.free++
		return
	}
	close(s.waiting[0])
	s.waiting = slices.Delete(s.waiting, 0, 1)
}

// state returns how many slots are in use and how many wait for one.
func (s *slots) state() (busy, waiting int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total - s.free, len(s.waiting)
}
