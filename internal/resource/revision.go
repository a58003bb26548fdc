package resource

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Revision is a version of an app's template, with the settings of its replicas. The platform creates it. After that
// users activate, deactivate and restart it; the rest is its status.
type Revision struct {
	ID          ID // of type TypeRevision
	Environment ID
	Created     time.Time
	Template    Template
	// Images maps each image reference of the template to the digest that it had when the revision was created.
	Images map[string]string
	// Generation is that of the app when the revision was created.
	Generation int64 `json:",omitempty"`

	// Off is set while the revision is deactivated by a user.
	Off bool `json:",omitempty"`
	// Activations counts how often a user has activated it.
	Activations int64 `json:",omitempty"`
	// Restarted is when a user last asked for new replicas in place of the old ones.
	Restarted time.Time `json:",omitzero"`

	RevisionStatus `json:"-"`
}

// RevisionStatus is the part of a revision that the platform writes.
type RevisionStatus struct {
	Serving
	Settings Settings
	// Retired is set when the platform has deactivated the revision, because another one replaced it in Single mode. It
	// no longer counts when Activations is greater than RetiredAt, because a user has activated the revision since.
	Retired   bool  `json:",omitempty"`
	RetiredAt int64 `json:",omitempty"`
	State     RevisionState
	// Reason says, for people, why the revision has its State.
	Reason string `json:",omitempty"`
	// Ready is when the revision first had a ready replica since it was last stopped. It is zero before.
	Ready time.Time
}

// Active says whether the revision is active: neither a user nor the platform has deactivated it since a user last
// activated it.
func (r Revision) Active() bool {
	return !r.Off && (!r.Retired || r.Activations > r.RetiredAt)
}

// Serving says how requests reach the replicas of a revision. It changes with the app's ingress, without a new revision.
type Serving struct {
	// TargetPort is the port of the ingress, which implicit probes and CONTAINER_APP_PORT use too. It is 0 without ingress
	// and with DetectPort.
	TargetPort int
	// DetectPort is set when the platform finds out the port of each replica. Replica.Port has the result.
	DetectPort bool `json:",omitempty"`
	// TLS is set when the replicas speak TLS.
	TLS bool `json:",omitempty"`
}

// App returns the ID of the revision's app.
func (r Revision) App() ID { return r.ID.Parent() }

// Name returns the revision's own name, as in "chat--0000001".
func (r Revision) Name() string { return r.ID.Base() }

// Pinned returns an image reference of the template with the digest of the revision, so that every replica runs the same
// image.
func (r Revision) Pinned(ref string) string {
	digest := r.Images[ref]
	if digest == "" || strings.Contains(ref, "@") {
		return ref
	}
	return ref + "@" + digest
}

// RevisionState is the running state of a revision, in Azure's words.
type RevisionState string

const (
	RevisionActivating       RevisionState = "Activating"
	RevisionRunning          RevisionState = "Running"
	RevisionDegraded         RevisionState = "Degraded"
	RevisionActivationFailed RevisionState = "ActivationFailed"
	RevisionStopped          RevisionState = "Stopped"
	// RevisionScaledToZero has no replicas because nobody asks for it.
	RevisionScaledToZero RevisionState = "ScaledToZero"
)

// ReplicaState is the state of a replica.
type ReplicaState string

const (
	ReplicaCreating ReplicaState = "Creating" // image, network, containers
	ReplicaStarting ReplicaState = "Starting" // processes run, not ready yet
	ReplicaReady    ReplicaState = "Ready"
	ReplicaUnready  ReplicaState = "Unready"  // was ready; its readiness probe fails now
	ReplicaWaiting  ReplicaState = "Waiting"  // between two restarts
	ReplicaStopping ReplicaState = "Stopping" // got SIGTERM

	// Only replicas of executions have these.
	ReplicaSucceeded ReplicaState = "Succeeded"
	ReplicaFailed    ReplicaState = "Failed"
)

// Stage is how far the start of a replica has come.
type Stage string

// The stages of a start.
const (
	StageQueued  Stage = "queued"  // waits for memory, or for its image
	StagePulled  Stage = "pulled"  // the images of its containers are here
	StageCreated Stage = "created" // its first container is created
	StageLoading Stage = "loading" // its program runs and is not ready yet
	StageReady   Stage = "ready"
)

// Stages returns all stages, in their order.
func Stages() []Stage {
	return []Stage{StageQueued, StagePulled, StageCreated, StageLoading, StageReady}
}

// Compare returns a positive number if s comes after other, and a negative one if it comes before. A stage that this
// version does not know comes before all others.
func (s Stage) Compare(other Stage) int {
	order := Stages()
	return slices.Index(order, s) - slices.Index(order, other)
}

// Replica is a replica of a revision or an execution, as the engine reports it.
type Replica struct {
	Name     string // unique on the machine: "chat--0000001-5b8d8f4c6f-x7k2p"
	Revision ID
	State    ReplicaState
	// Address is the IP address of the replica.
	Address netip.Addr
	// Port is the port that requests are sent to: that of the revision when the replica was created, or the one on which
	// the replica was found to listen. 0 means that there is none or that it is not known yet.
	Port       int `json:",omitempty"`
	Created    time.Time
	ReadySince time.Time // zero when not ready
	// Stage is how far its start has come.
	Stage Stage
	// Start is how long its last start took until its program ran, and Load is how long the program then took to become
	// ready. Both are zero before that. A replica that was frozen runs its program already: it has only a Start.
	Start time.Duration `json:",omitempty"`
	Load  time.Duration `json:",omitempty"`
	// Restarts counts the restarts of all its containers.
	Restarts int
	// Failures counts the starts in a row after which the replica ended before it was ready.
	Failures int
	// Hopeless is set when no further start can succeed, because the image does not exist or the replica is larger than
	// the machine.
	Hopeless bool
	// Reason says, for people, why the replica is not ready.
	Reason     string `json:",omitempty"`
	Containers []ContainerStatus
	// InitContainers run before the others, in their order.
	InitContainers []ContainerStatus `json:",omitempty"`
}

// WaitsForRoom reports whether a replica has not been started because the machine's memory is promised to others, or its disk
// is full.
func (r Replica) WaitsForRoom() bool {
	return r.State == ReplicaWaiting && r.Failures == 0 && r.Restarts == 0
}

// ContainerStatus is the state of one container of a replica.
type ContainerStatus struct {
	Name    string
	ID      string // that of the engine, with its scheme: "containerd://..."
	Running bool
	// Done is set for an init container that has succeeded. It is not started again.
	Done     bool `json:",omitempty"`
	Started  time.Time
	Restarts int
	PID      int // on this machine; 0 when it does not run or the engine cannot tell
	// LastExit says how it last ended. It is nil when it has never ended.
	LastExit *Exit `json:",omitempty"`
}

// Exit is the end of a container's process.
type Exit struct {
	Code int
	At   time.Time
	// OOM is set when the kernel killed a process of the container at its memory limit.
	OOM    bool
	Reason string // "OOMKilled", "Error", "Completed", "Unknown"
	// Cause is the failure of the probe for which the platform ended the container. It is empty for one that ended by itself.
	Cause string `json:",omitempty"`
}

// Why says for people why a container ended.
func (e Exit) Why() string { return cmp.Or(e.Cause, e.Reason) }

// String describes the end of a container for people.
func (e Exit) String() string {
	if e.Cause != "" {
		return fmt.Sprintf("was ended with exit code %d: %s", e.Code, e.Cause)
	}
	return fmt.Sprintf("ended with exit code %d (%s)", e.Code, e.Reason)
}
