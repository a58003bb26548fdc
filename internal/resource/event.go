package resource

import "time"

// Event is one line of the system log: what the platform did, to which resource, and why. Reason is Azure's word where
// Azure has one ("RevisionCreation", "PulledImage", "ContainerStarted", "ProbeFailed", ...).
type Event struct {
	At       time.Time
	Warning  bool
	App      ID
	Revision string // name; "" when the event is about the app or job
	Replica  string
	Reason   string
	Message  string
	Source   string // "ContainerAppController", "Engine", "Ingress"
	// Duration is how long the step took whose end the event reports. It is 0 for other events.
	Duration time.Duration
}
