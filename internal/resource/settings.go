package resource

import "time"

// TagPrefix is the beginning of the names of the tags that are Penstock's own settings. Azure stores such tags and ignores
// them.
const TagPrefix = "penstock."

// Behaviour says whether a revision has exactly the numbers that Azure documents.
type Behaviour string

const (
	Fast  Behaviour = "fast"  // Azure's rules, with improvements where Azure's behaviour is a problem
	Azure Behaviour = "azure" // exactly the documented numbers
)

// Rollout says what happens to the old revision when the machine has no room for both.
type Rollout string

const (
	Surge   Rollout = "surge"
	Replace Rollout = "replace"
)

// Retry says which requests can be sent to a second replica after the first one accepted them and sent no response.
type Retry string

const (
	RetryIdempotent Retry = "idempotent" // RFC 9110 section 9.2.2
	RetryAll        Retry = "all"
	RetryNone       Retry = "none"
)

// Settings are the settings of an app: those of the penstock tags of its environment, overridden by those of its own.
type Settings struct {
	Behaviour      Behaviour
	MaxConcurrency int // requests that a replica gets at a time; 0: no limit
	QueueLimit     int
	QueueTimeout   time.Duration
	RequestTimeout time.Duration // 0: none
	IdleTimeout    time.Duration // a connection without any data is closed after it
	Rollout        Rollout
	Retry          Retry
	DrainLimit     time.Duration
	Capabilities   Capabilities
	Prefetch       Prefetch
	Standby        Standby
	HTTPMetric     HTTPMetric
	Recycle        int           // percent of the memory limit from which on a leaking replica is replaced; 0: never
	ScaleInWindow  time.Duration // how long a smaller count must have been enough before replicas go
	Progress       bool          `json:",omitempty"` // clients can follow the start of a replica as an event stream
}

// HTTPMetric says what an http scale rule counts.
type HTTPMetric string

const (
	MetricInFlight   HTTPMetric = "inflight"   // requests on replicas or waiting for one
	MetricDocumented HTTPMetric = "documented" // requests a second over 15 s, as Azure documents it

	// MetricConnections are clients' open connections, each counted for the app that its last request went to.
	MetricConnections HTTPMetric = "connections"
)

// Capabilities says which of Docker's default capabilities a replica's containers keep.
type Capabilities string

const (
	CapabilitiesDefault Capabilities = "default"
	CapabilitiesNone    Capabilities = "none"
)

// Standby says what is kept ready of a revision that has no replicas.
type Standby string

const (
	StandbyCreated Standby = "created" // one replica, created and not started
	StandbyPaused  Standby = "paused"  // the last replica, frozen with its memory
	StandbyNone    Standby = "none"
)

// Prefetch says which files of an image are read into memory before a container of it starts.
type Prefetch string

const (
	PrefetchOff     Prefetch = "off"
	PrefetchWeights Prefetch = "weights"
)
