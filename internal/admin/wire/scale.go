package wire

import "time"

// Scale is the number of replicas of an app, and why.
type Scale struct {
	App       string          `json:"app"`       // resource ID
	Revisions []RevisionScale `json:"revisions"` // revisions that can have replicas, by name
}

// JobScale is what the rules of a job ask for that events start.
type JobScale struct {
	Job   string      `json:"job"`   // resource ID
	Rules []RuleState `json:"rules"` // Wanted counts executions
}

// RevisionScale is the number of replicas of a revision, and why.
type RevisionScale struct {
	Revision        string            `json:"revision"`
	Created         time.Time         `json:"created"`
	Behaviour       string            `json:"behaviour"` // "fast" or "azure"
	MinReplicas     int               `json:"minReplicas"`
	MaxReplicas     int               `json:"maxReplicas"`
	CooldownSeconds float64           `json:"cooldownSeconds"` // from 1 to 0
	WindowSeconds   float64           `json:"windowSeconds"`   // before the count goes down, to 1 at least
	Wanted          int               `json:"wanted"`
	Replicas        int               `json:"replicas"` // running or starting
	Ready           int               `json:"ready"`
	Held            int               `json:"held,omitempty"`   // wanted, and not started because the machine has no room
	HeldBy          string            `json:"heldBy,omitempty"` // what the held replicas wait for
	Reason          string            `json:"reason"`           // why this number is wanted, in one sentence
	Bound           string            `json:"bound,omitempty"`  // what limits the count to something else than the rules want: "minReplicas", "maxReplicas", "step", "window", "cooldown", "waiting", "source", "judged"
	Until           time.Time         `json:"until,omitzero"`   // when the bound ends, if known
	Rules           []RuleState       `json:"rules"`
	ServiceMS       float64           `json:"serviceMs,omitempty"`      // measured mean time of a request on a replica
	StartMS         float64           `json:"startMs,omitempty"`        // measured mean time from the order of a replica until it is ready
	RecyclePercent  int               `json:"recyclePercent,omitempty"` // share of the memory limit from which on a replica is replaced
	Memory          []ContainerMemory `json:"memory"`                   // of each container of a replica that has been ready
	Changes         []ScaleChange     `json:"changes"`                  // newest last; those of the last hour, or since the requested time
}

// ContainerMemory is the memory of a container that the kernel cannot free, anonymous and shared, and how it grows.
type ContainerMemory struct {
	Replica            string  `json:"replica"`
	Container          string  `json:"container"`
	UsedBytes          int64   `json:"usedBytes"`
	LimitBytes         int64   `json:"limitBytes"`
	GrowthBytesPerHour int64   `json:"growthBytesPerHour"`        // 0 if it does not grow steadily
	SecondsToLimit     float64 `json:"secondsToLimit,omitempty"`  // at this growth
	ObservedSeconds    float64 `json:"observedSeconds,omitempty"` // how long it has grown like this
	Leak               bool    `json:"leak,omitempty"`            // it has grown for so long that it is not warming up
	Recycled           string  `json:"recycled,omitempty"`        // why the replica is being replaced
}

// RuleState is what a scale rule measured and wants.
type RuleState struct {
	Name   string  `json:"name"`
	Kind   string  `json:"kind"`   // "http", "tcp", "cpu", "memory", "cron", "external" or "other"
	Value  float64 `json:"value"`  // requests, connections, percent, vCPUs, MiB or units of a source
	Target float64 `json:"target"` // per replica
	Wanted int     `json:"wanted"` // replicas, or executions of a job
	Active bool    `json:"active"` // it prevents scaling to zero
	Failed bool    `json:"failed,omitempty"`
	Note   string  `json:"note,omitempty"` // a remark about the rule
	// Window of a cron rule is its start, end and time zone, as in "0 8 * * 1-5 to 0 20 * * 1-5 Asia/Seoul".
	// WindowChanges is when it begins or ends next.
	Window        string    `json:"window,omitempty"`
	WindowChanges time.Time `json:"windowChanges,omitzero"`
}

// ScaleChange is a decision that changed the count, the deciding rule or the bound. From and To are the same if the
// count did not change.
type ScaleChange struct {
	At        time.Time `json:"at"`
	From      int       `json:"from"`
	To        int       `json:"to"`
	Behaviour string    `json:"behaviour"`
	Rule      string    `json:"rule,omitempty"`  // the rule that decided
	Value     float64   `json:"value,omitempty"` // of the rule
	Target    float64   `json:"target,omitempty"`
	Wanted    int       `json:"wanted"` // replicas that the rules wanted
	Bound     string    `json:"bound,omitempty"`
	Reason    string    `json:"reason"`
}
