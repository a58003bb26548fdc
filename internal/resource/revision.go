package resource

import (
	"net/netip"
	"strings"
	"time"
)

// Revision is an app's template as it was at one time, with the settings that its replicas run under. It never changes
// but for its state.
type Revision struct {
	ID          ID // of type TypeRevision
	Environment ID
	Created     time.Time
	Template    Template
	Serving
	Settings Settings
	// Images maps each image reference of the template to the digest that it meant when the revision was made.
	Images map[string]string

	// Generation is that of the write that made the revision.
	Generation int64 `json:",omitempty"`

	Active bool
	// Off is set when its user has deactivated it.
	Off bool `json:",omitempty"`
	// Restarted is when its user last asked for new replicas in place of those that there were.
	Restarted time.Time `json:",omitzero"`
	State     RevisionState
	// Reason says why State is what it is, for people.
	Reason string `json:",omitempty"`
	// Ready is when the revision first had a ready replica since it was last stopped; zero before.
	Ready time.Time
}

// Serving is how the replicas of a revision are reached. It follows the app's ingress without a new revision.
type Serving struct {
	// TargetPort is the ingress port that implicit probes and CONTAINER_APP_PORT use; 0 without ingress, and with
	// DetectPort.
	TargetPort int
	// DetectPort is set when the port is to be found out, of each replica: it is in Replica.Port.
	DetectPort bool `json:",omitempty"`
	// TLS is set when the replicas speak it.
	TLS bool `json:",omitempty"`
}

// App is the ID of the app whose revision this is.
func (r Revision) App() ID { return r.ID.Parent() }

// Name is the revision's own name, "chat--0000001".
func (r Revision) Name() string { return r.ID.Base() }

// Pinned is an image reference of the template by the digest that it meant, so that every replica runs the same image.
func (r Revision) Pinned(ref string) string {
	digest := r.Images[ref]
	if digest == "" || strings.Contains(ref, "@") {
		return ref
	}
	return ref + "@" + digest
}

// RevisionState is a revision's running state, in Azure's words.
type RevisionState string

const (
	RevisionActivating       RevisionState = "Activating"
	RevisionRunning          RevisionState = "Running"
	RevisionDegraded         RevisionState = "Degraded"
	RevisionActivationFailed RevisionState = "ActivationFailed"
	RevisionStopped          RevisionState = "Stopped"
)

// ReplicaState is how far a replica has come.
type ReplicaState string

const (
	ReplicaCreating ReplicaState = "Creating" // image, network, containers
	ReplicaStarting ReplicaState = "Starting" // processes run, not ready yet
	ReplicaReady    ReplicaState = "Ready"
	ReplicaUnready  ReplicaState = "Unready"  // was ready; its readiness probe fails now
	ReplicaWaiting  ReplicaState = "Waiting"  // between two restarts
	ReplicaStopping ReplicaState = "Stopping" // got SIGTERM

	// Of a replica that runs to its end, and of no other.
	ReplicaSucceeded ReplicaState = "Succeeded"
	ReplicaFailed    ReplicaState = "Failed"
)

// Replica is one copy of a revision as the engine sees it.
type Replica struct {
	Name     string // unique on the machine: "chat--0000001-5b8d8f4c6f-x7k2p"
	Revision ID
	State    ReplicaState
	// Address is the host that the replica's ports are on.
	Address netip.Addr
	// Port is the one that requests go to: the revision's when the replica was made, or the one that it was found to
	// listen on. 0: none, or not known yet.
	Port       int `json:",omitempty"`
	Created    time.Time
	ReadySince time.Time // zero when not ready
	// Restarts counts over all its containers.
	Restarts int
	// Failures counts the starts in a row that ended before the replica was ready.
	Failures int
	// Hopeless is set when no further start can succeed: the image is gone, the replica is larger than the machine.
	Hopeless bool
	// Reason says why the replica is not ready, for people.
	Reason     string `json:",omitempty"`
	Containers []ContainerStatus
	// InitContainers are those that run before the others, in their order.
	InitContainers []ContainerStatus `json:",omitempty"`
}

// ContainerStatus is the state of one container of a replica.
type ContainerStatus struct {
	Name    string
	ID      string // the engine's, with its scheme: "containerd://..."
	Running bool
	// Done is set for an init container that has ended as it should. It is not started again.
	Done     bool `json:",omitempty"`
	Started  time.Time
	Restarts int
	PID      int // on this machine; 0 when it does not run or the engine cannot tell
	// LastExit tells how it ended last; nil when it never did.
	LastExit *Exit `json:",omitempty"`
}

// Exit is the end of a container's process.
type Exit struct {
	Code int
	At   time.Time
	// OOM is set when the kernel killed a process of the container at its memory limit.
	OOM    bool
	Reason string // "OOMKilled", "Error", "Completed", "Unknown"
}
