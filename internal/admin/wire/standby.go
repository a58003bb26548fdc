package wire

import "time"

// Standby is what is kept ready for a revision that has no replicas.
type Standby struct {
	Revision string    `json:"revision"` // resource ID
	Replica  string    `json:"replica"`  // the name that it will have as a replica
	Kind     string    `json:"kind"`     // "created" or "paused"
	Ready    bool      `json:"ready"`
	Since    time.Time `json:"since"`
}
