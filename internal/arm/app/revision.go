package app

import (
	"strings"
	"time"

	"penstock/internal/resource"
)

// Revision is Microsoft.App/containerApps/revisions. Azure spells its type with a small a.
type Revision struct {
	ID         string             `json:"id"`
	Name       string             `json:"name"`
	Type       string             `json:"type"`
	Properties RevisionProperties `json:"properties"`
}

// RevisionProperties has the properties of a revision.
type RevisionProperties struct {
	CreatedTime       string    `json:"createdTime"`
	Fqdn              string    `json:"fqdn"`
	Template          *Template `json:"template"`
	Active            bool      `json:"active"`
	Replicas          int       `json:"replicas"`
	TrafficWeight     int       `json:"trafficWeight"`
	ProvisioningError string    `json:"provisioningError,omitempty"`
	HealthState       string    `json:"healthState"`
	ProvisioningState string    `json:"provisioningState"`
	RunningState      string    `json:"runningState"`
}

// NewRevision returns the JSON of a revision.
func NewRevision(rev resource.Revision, a resource.App, domain string, replicas int) Revision {
	w := Revision{
		ID:   rev.ID.String(),
		Name: rev.Name(),
		Type: appType + "/revisions",
		Properties: RevisionProperties{
			CreatedTime:  rfc3339(rev.Created),
			Template:     newTemplate(rev.Template),
			Active:       rev.Active(),
			Replicas:     replicas,
			RunningState: string(rev.State),
		},
	}
	p := &w.Properties
	p.Template.RevisionSuffix = given(p.Template.RevisionSuffix) // an app has "" instead
	if in := a.Configuration.Ingress; in != nil {
		p.Fqdn = resource.Host(rev.Name(), domain, in.External)
	}
	for _, share := range a.Shares() {
		if a.Target(share) == rev.Name() {
			p.TrafficWeight += share.Weight
		}
	}
	if rev.State != resource.RevisionRunning {
		p.ProvisioningError = rev.Reason
	}
	switch rev.State {
	case resource.RevisionRunning:
		p.ProvisioningState, p.HealthState = "Provisioned", "Healthy"
	case resource.RevisionDegraded:
		p.ProvisioningState, p.HealthState = "Provisioned", "Unhealthy"
	case resource.RevisionActivationFailed:
		p.ProvisioningState, p.HealthState = "Failed", "Unhealthy"
	case resource.RevisionStopped:
		p.ProvisioningState, p.HealthState = "Deprovisioned", "None"
	default:
		p.ProvisioningState, p.HealthState = "Provisioning", "None"
	}
	return w
}

// Replica is Microsoft.App/containerApps/revisions/replicas.
type Replica struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Type       string            `json:"type"`
	Properties ReplicaProperties `json:"properties"`
}

// ReplicaProperties has the properties of a replica.
type ReplicaProperties struct {
	CreatedTime         string             `json:"createdTime"`
	RunningState        string             `json:"runningState"`
	RunningStateDetails string             `json:"runningStateDetails"`
	Containers          []ReplicaContainer `json:"containers"`
	InitContainers      []ReplicaContainer `json:"initContainers"`
}

// ReplicaContainer is the state of one container of a replica.
type ReplicaContainer struct {
	Name                string `json:"name"`
	ContainerID         string `json:"containerId"`
	Ready               bool   `json:"ready"`
	Started             bool   `json:"started"`
	RestartCount        int    `json:"restartCount"`
	RunningState        string `json:"runningState"`
	RunningStateDetails string `json:"runningStateDetails"`
	LogStreamEndpoint   string `json:"logStreamEndpoint"`
	ExecEndpoint        string `json:"execEndpoint"`
}

// NewReplica returns the JSON of a replica.
func NewReplica(r resource.Replica, site Site) Replica {
	id := r.Revision.Child("replicas", r.Name)
	w := Replica{
		ID:   id.String(),
		Name: r.Name,
		Type: appType + "/revisions/replicas",
		Properties: ReplicaProperties{
			CreatedTime:         rfc3339(r.Created),
			RunningState:        "NotRunning",
			RunningStateDetails: r.Reason,
			Containers:          []ReplicaContainer{},
			InitContainers:      []ReplicaContainer{},
		},
	}
	switch r.State {
	case resource.ReplicaReady, resource.ReplicaUnready, resource.ReplicaStarting:
		w.Properties.RunningState = "Running"
	}
	_, kind, _ := strings.Cut(r.Revision.Type, "/")
	base := streamBase(site, r.Revision.Parent()) + kind[strings.LastIndexByte(kind, '/'):] + "/" + r.Revision.Base() + "/replicas/" + r.Name
	for _, c := range r.Containers {
		status := newReplicaContainer(c, base)
		status.Ready = c.Running && r.State == resource.ReplicaReady
		status.Started = c.Running && r.State != resource.ReplicaCreating
		w.Properties.Containers = append(w.Properties.Containers, status)
	}
	for _, c := range r.InitContainers {
		status := newReplicaContainer(c, base)
		status.Ready, status.Started = c.Done, c.Running || c.Done
		w.Properties.InitContainers = append(w.Properties.InitContainers, status)
	}
	return w
}

// newReplicaContainer returns the JSON of a container. The addresses of its streams begin with base.
func newReplicaContainer(c resource.ContainerStatus, base string) ReplicaContainer {
	status := ReplicaContainer{
		Name:              c.Name,
		ContainerID:       c.ID,
		RestartCount:      c.Restarts,
		RunningState:      "Waiting",
		LogStreamEndpoint: base + "/containers/" + c.Name + "/logstream",
		ExecEndpoint:      "ws" + strings.TrimPrefix(base, "http") + "/containers/" + c.Name + "/exec",
	}
	switch {
	case c.Running:
		status.RunningState = "Running"
	case c.Done:
		status.RunningState, status.RunningStateDetails = "Terminated", "Completed"
	case c.LastExit != nil:
		status.RunningState, status.RunningStateDetails = "Terminated", c.LastExit.Why()
	}
	return status
}

// rfc3339 formats times in revisions and replicas, which have whole seconds in Azure.
func rfc3339(t time.Time) string { return t.UTC().Format(time.RFC3339) }
