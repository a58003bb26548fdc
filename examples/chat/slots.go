package main

import (
	"context"
	"errors"
	"slices"
	"sync"
)

// errQueueFull is acquire's answer when as many wait already as may.
var errQueueFull = errors.New("all slots are busy and the queue is full")

// slots are the places in which a generation runs. Those who find none wait, and get theirs in the order in which they came.
type slots struct {
	total, limit int

	mu      sync.Mutex
	free    int
	waiting []chan struct{} // the first is next; closed when it has its slot
}

// newSlots makes n slots in front of which limit may wait.
func newSlots(n, limit int) *slots {
	return &slots{total: n, limit: limit, free: n}
}

// acquire returns when a slot is the caller's, who gives it back with release, or when ctx ends.
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
	if i < 0 { // the slot came in the same moment: it goes to the next
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
