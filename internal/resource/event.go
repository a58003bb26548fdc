package resource

import "time"

// Event is one line of the system log: what the platform did, to what, and why. Reasons are Azure's words where Azure
// has one ("RevisionCreation", "PulledImage", "ContainerStarted", "ProbeFailed", ...).
type Event struct {
	At       time.Time
	Warning  bool
	App      ID
	Revision string // name; "" when it is about the app
	Replica  string
	Reason   string
	Message  string
	Source   string // "ContainerAppController", "Engine", "Ingress"
	// Duration is how long the step took that the event ends; 0 when it ends none.
	Duration time.Duration
}
