package room

import (
	"fmt"
	"time"
)

// Reason is why a ticket is refused.
type Reason int

const (
	// Failed means that no replica can ever start; Detail says why.
	Failed Reason = iota + 1
	// LineFull means that the line is at its limit of Waiting tickets.
	LineFull
	// NoPlace means that each of the Replicas had Limit requests for all the time that the ticket may wait.
	NoPlace
	// NoReplica means that no replica became ready in the time that a ticket may wait; Detail says why if that is known.
	NoReplica
)

// Refusal says why a ticket got no place. Fields that its reason does not name are zero.
type Refusal struct {
	Reason          Reason
	Detail          string
	Waiting         int
	Replicas, Limit int
	After           time.Duration // how long a ticket may wait; of NoPlace and NoReplica
}

// Error implements error.
func (r *Refusal) Error() string {
	switch r.Reason {
	case Failed:
		return "no replica can start: " + r.Detail
	case LineFull:
		return fmt.Sprintf("%d wait already, which is the limit", r.Waiting)
	case NoPlace:
		return fmt.Sprintf("no place became free within %v: each of the %d replicas has its %d requests", r.After, r.Replicas, r.Limit)
	default:
		if r.Detail != "" {
			return fmt.Sprintf("waited %v: %s", r.After, r.Detail)
		}
		return fmt.Sprintf("waited %v: no replica became ready", r.After)
	}
}
