package resource

import (
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// Meta has the fields of every tracked resource.
type Meta struct {
	ID       ID
	Location string
	Tags     map[string]string
	Created  time.Time
	Modified time.Time
	// Generation counts the writes of users, from 1. Progress.Observed is the newest one that is finished.
	Generation int64
	// Deleted is when a user asked for the deletion. The platform removes the resource when none of its replicas is left.
	Deleted time.Time `json:",omitzero"`
}

// ProvisioningState says whether the platform has carried out what users wrote.
type ProvisioningState string

const (
	InProgress ProvisioningState = "InProgress"
	Succeeded  ProvisioningState = "Succeeded"
	Failed     ProvisioningState = "Failed"
	Canceled   ProvisioningState = "Canceled"
	Deleting   ProvisioningState = "Deleting"
)

// Environment is the boundary around a group of apps. They share a domain, a network and a log destination.
type Environment struct {
	Meta
	// Profiles are the workload profiles that apps can ask for beside Consumption.
	Profiles []Profile          `json:",omitempty"`
	Ingress  EnvironmentIngress `json:",omitzero"`
	// Stored has the properties that are only stored and returned, by their ARM names. They have no effect here.
	Stored map[string]json.RawMessage `json:",omitempty"`

	EnvironmentStatus `json:"-"`
}

// EnvironmentStatus is the part of an environment that the platform writes.
type EnvironmentStatus struct {
	Progress
	// DefaultDomain is the parent of every app's host name. It is "" until the platform has chosen one.
	DefaultDomain string
}

// EnvironmentIngress has an environment's settings of the ingress, for all its apps.
type EnvironmentIngress struct {
	// IdleTimeout is how long a request stays open without any data, unless a tag says otherwise. 0 means the default.
	IdleTimeout time.Duration `json:",omitempty"`
	// MaxHeaders bounds the number of headers of a request. 0 means the limit of the ingress.
	MaxHeaders int `json:",omitempty"`
}

// Settings returns the settings of an app or job of the environment that has these tags.
func (e Environment) Settings(tags map[string]string) (Settings, error) {
	inherited := e.Tags
	if e.Ingress.IdleTimeout > 0 {
		inherited = map[string]string{TagPrefix + "idle-timeout": e.Ingress.IdleTimeout.String()}
		for tag, value := range e.Tags {
			inherited[strings.ToLower(tag)] = value
		}
	}
	return ParseSettings(inherited, tags)
}

// Group is a resource group that a user has created. Its ID has its name twice, as the group and as the name.
type Group struct{ Meta }

// App is a container app. Its configuration applies at once; each change of its template makes a new revision.
type App struct {
	Meta
	Environment   ID
	Profile       string `json:",omitempty"` // a workload profile of the environment; "": Consumption
	Configuration Configuration
	Template      Template
	Stored        map[string]json.RawMessage `json:",omitempty"`

	// Stopped means that the app has no replicas and no routes until a user starts it.
	Stopped bool `json:",omitempty"`

	AppStatus `json:"-"`
}

// AppStatus is the part of an app that the platform writes.
type AppStatus struct {
	Progress
	LatestRevision      string `json:",omitempty"`
	LatestReadyRevision string `json:",omitempty"`
}

// Configuration can be changed without a new revision.
type Configuration struct {
	Mode    RevisionMode `json:",omitempty"` // "": Single
	Ingress *Ingress     `json:",omitempty"`
	Secrets []AppSecret  `json:",omitempty"`
	// Registries are the registries from which images are pulled, with their logins.
	Registries []Registry `json:",omitempty"`
	// MaxInactive is how many inactive revisions are kept. nil means DefaultMaxInactive.
	MaxInactive *int                       `json:",omitempty"`
	Stored      map[string]json.RawMessage `json:",omitempty"`
}

// Template describes the replicas of a revision.
type Template struct {
	RevisionSuffix string
	// Grace is the time between SIGTERM and SIGKILL.
	Grace      time.Duration
	Containers []Container
	// InitContainers run one after the other, before Containers start. They have no probes.
	InitContainers []Container `json:",omitempty"`
	Volumes        []Volume    `json:",omitempty"`
	Scale          Scale
	Stored         map[string]json.RawMessage `json:",omitempty"`
}

// Container is one container of a replica.
type Container struct {
	Name      string
	Image     string
	Command   []string `json:",omitempty"` // replaces the image's entrypoint
	Args      []string `json:",omitempty"` // replaces the image's cmd
	Env       []EnvVar `json:",omitempty"`
	Resources Resources
	// DefaultSize says that the request being read has no resources for this container.
	DefaultSize bool `json:"-"`

	Mounts []VolumeMount              `json:",omitempty"`
	Probes []Probe                    `json:",omitempty"`
	Stored map[string]json.RawMessage `json:",omitempty"`
}

// EnvVar is an environment variable of a container. It has a value or the name of a secret of the app.
type EnvVar struct {
	Name, Value string
	SecretRef   string `json:",omitempty"`
}

// Resources are a container's limits.
type Resources struct {
	MilliCPU int64 // thousandths of a vCPU
	Memory   int64 // bytes
}

// SetDefaultResources gives the containers for which the request has no resources those of Azure, if it should behave so.
// Before that they have Penstock's, which are half as large.
func (t Template) SetDefaultResources(b Behaviour) {
	for _, list := range [][]Container{t.Containers, t.InitContainers} {
		for i := range list {
			if r := &list[i].Resources; list[i].DefaultSize && b == Azure {
				*r = Resources{MilliCPU: 2 * r.MilliCPU, Memory: 2 * r.Memory}
			}
			list[i].DefaultSize = false
		}
	}
}

// ProbeType says what the result of a probe means.
type ProbeType string

const (
	Startup   ProbeType = "Startup"
	Readiness ProbeType = "Readiness"
	Liveness  ProbeType = "Liveness"
)

// Probe checks a container. Exactly one of HTTP and TCP is set.
type Probe struct {
	Type             ProbeType
	HTTP             *HTTPGet   `json:",omitempty"`
	TCP              *TCPSocket `json:",omitempty"`
	InitialDelay     time.Duration
	Period           time.Duration
	Timeout          time.Duration
	FailureThreshold int
	SuccessThreshold int
	Grace            time.Duration `json:",omitempty"` // 0: that of the template
}

// Probed says whether the container has a probe of its own that tells when it is ready.
func (c Container) Probed() bool {
	return slices.ContainsFunc(c.Probes, func(p Probe) bool { return p.Type == Startup || p.Type == Readiness })
}

// HTTPGet is a probe that succeeds when the status of the response is from 200 to 399.
type HTTPGet struct {
	Path    string
	Port    int
	Scheme  string // "HTTP" or "HTTPS"
	Host    string `json:",omitempty"`
	Headers []Header
}

// Header is a header of the request of a probe.
type Header struct{ Name, Value string }

// TCPSocket is a probe that succeeds when a connection can be opened.
type TCPSocket struct {
	Port int
}
