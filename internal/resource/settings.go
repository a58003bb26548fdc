package resource

import "time"

// TagPrefix is what the names of Penstock's own settings start with. Azure stores such tags and ignores them.
const TagPrefix = "penstock."

// Behaviour says whose numbers a revision runs under.
type Behaviour string

const (
	Fast  Behaviour = "fast"  // Azure's rules, better where Azure's behaviour hurts
	Azure Behaviour = "azure" // the documented numbers exactly
)

// Rollout says what happens to the old revision when the new one does not fit beside it.
type Rollout string

const (
	Surge   Rollout = "surge"
	Replace Rollout = "replace"
)

// Retry says which requests may be sent to a second replica after a first one took them and gave nothing back.
type Retry string

const (
	RetryIdempotent Retry = "idempotent" // RFC 9110 section 9.2.2
	RetryAll        Retry = "all"
	RetryNone       Retry = "none"
)

// Settings is what the penstock tags of an app, and of its environment below them, add up to.
type Settings struct {
	Behaviour      Behaviour
	MaxConcurrency int // requests a replica is given at a time; 0: no limit
	QueueLimit     int
	QueueTimeout   time.Duration
	RequestTimeout time.Duration // 0: none
	IdleTimeout    time.Duration // a silent connection is ended after it
	Rollout        Rollout
	Retry          Retry
	DrainLimit     time.Duration
	Capabilities   Capabilities
	Prefetch       Prefetch
}

// Capabilities says which of Docker's default capabilities a replica's containers keep.
type Capabilities string

const (
	CapabilitiesDefault Capabilities = "default"
	CapabilitiesNone    Capabilities = "none"
)

// Prefetch says what of an image is read into memory before a container of it starts.
type Prefetch string

const (
	PrefetchOff     Prefetch = "off"
	PrefetchWeights Prefetch = "weights"
)
