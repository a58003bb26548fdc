package resource

import (
	"encoding/json"
	"strings"
	"time"
)

// Meta is what every tracked resource has.
type Meta struct {
	ID       ID
	Location string
	Tags     map[string]string
	Created  time.Time
	Modified time.Time
	// Generation counts the writes of a user, from 1. Reconcile compares it with what it has done.
	Generation int64
}

// ProvisioningState is how far the platform has come with what was asked.
type ProvisioningState string

const (
	InProgress ProvisioningState = "InProgress"
	Succeeded  ProvisioningState = "Succeeded"
	Failed     ProvisioningState = "Failed"
	Canceled   ProvisioningState = "Canceled"
	Deleting   ProvisioningState = "Deleting"
)

// Environment is the boundary that apps share: a domain, a network, a log destination.
type Environment struct {
	Meta
	// DefaultDomain is the parent of every app's host name.
	DefaultDomain string
	Provisioning  ProvisioningState
	// Profiles are the kinds of machine that apps may ask for beside Consumption.
	Profiles []Profile          `json:",omitempty"`
	Ingress  EnvironmentIngress `json:",omitzero"`
	// Stored holds properties that are kept and echoed and have no effect here, by their ARM name.
	Stored map[string]json.RawMessage `json:",omitempty"`
}

// EnvironmentIngress is what an environment asks of the ingress for all its apps.
type EnvironmentIngress struct {
	// IdleTimeout is how long a silent request stays open, unless a tag says otherwise; 0: as without it.
	IdleTimeout time.Duration `json:",omitempty"`
	// MaxHeaders bounds the fields of a request's head; 0: as the ingress does.
	MaxHeaders int `json:",omitempty"`
}

// Settings are those of an app or job with these tags.
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

// Group is a resource group that a user has made. Its ID has its name twice: as the group, and as the name in it.
type Group struct{ Meta }

// App is a container app: configuration that applies at once, and a template of which every change makes a revision.
type App struct {
	Meta
	Environment   ID
	Profile       string `json:",omitempty"` // the name of one of the environment's; "": Consumption
	Configuration Configuration
	Template      Template
	Stored        map[string]json.RawMessage `json:",omitempty"`

	// Stopped apps have no replicas and no routes until they are started.
	Stopped bool `json:",omitempty"`

	Provisioning      ProvisioningState
	ProvisioningError string `json:",omitempty"`
	// Observed is the Generation that reconcile has brought to an end, well or badly.
	Observed            int64
	LatestRevision      string `json:",omitempty"`
	LatestReadyRevision string `json:",omitempty"`
}

// Configuration is what changes without a new revision.
type Configuration struct {
	Mode    RevisionMode `json:",omitempty"` // "": Single
	Ingress *Ingress     `json:",omitempty"`
	Secrets []AppSecret  `json:",omitempty"`
	// Registries are where images come from that are not pushed here, and who asks for them.
	Registries []Registry `json:",omitempty"`
	// MaxInactive is how many inactive revisions are kept; nil: DefaultMaxInactive.
	MaxInactive *int                       `json:",omitempty"`
	Stored      map[string]json.RawMessage `json:",omitempty"`
}

// Template is what a replica is made from.
type Template struct {
	RevisionSuffix string
	// Grace is the time between SIGTERM and SIGKILL.
	Grace      time.Duration
	Containers []Container
	// InitContainers run one after the other to their end before Containers start. They have no probes.
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
	Mounts    []VolumeMount              `json:",omitempty"`
	Probes    []Probe                    `json:",omitempty"`
	Stored    map[string]json.RawMessage `json:",omitempty"`
}

// EnvVar is one variable of a container's environment: a value, or the name of the app's secret that has it.
type EnvVar struct {
	Name, Value string
	SecretRef   string `json:",omitempty"`
}

// Resources are a container's limits.
type Resources struct {
	MilliCPU int64 // thousandths of a vCPU
	Memory   int64 // bytes
}

// Scale bounds the number of replicas.
type Scale struct {
	Min int
	Max int
	// Stored holds rules, cooldownPeriod and pollingInterval until a scaler reads them.
	Stored map[string]json.RawMessage `json:",omitempty"`
}

// ProbeType says what a probe decides.
type ProbeType string

const (
	Startup   ProbeType = "Startup"
	Readiness ProbeType = "Readiness"
	Liveness  ProbeType = "Liveness"
)

// Probe asks a container how it is. Exactly one of HTTP and TCP is set.
type Probe struct {
	Type             ProbeType
	HTTP             *HTTPGet   `json:",omitempty"`
	TCP              *TCPSocket `json:",omitempty"`
	InitialDelay     time.Duration
	Period           time.Duration
	Timeout          time.Duration
	FailureThreshold int
	SuccessThreshold int
	Grace            time.Duration `json:",omitempty"` // 0: the template's
}

// HTTPGet succeeds on a status from 200 to 399.
type HTTPGet struct {
	Path    string
	Port    int
	Scheme  string // "HTTP" or "HTTPS"
	Host    string `json:",omitempty"`
	Headers []Header
}

// Header is one header of a probe's request.
type Header struct{ Name, Value string }

// TCPSocket succeeds when a connection opens.
type TCPSocket struct {
	Port int
}
