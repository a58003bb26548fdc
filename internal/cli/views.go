package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// What the commands read of the server's answers. `-o json` prints the answers as they came.

type appView struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Properties struct {
		ProvisioningState       string `json:"provisioningState"`
		ProvisioningError       string `json:"provisioningError"`
		RunningStatus           string `json:"runningStatus"`
		EnvironmentID           string `json:"environmentId"`
		LatestRevisionName      string `json:"latestRevisionName"`
		LatestReadyRevisionName string `json:"latestReadyRevisionName"`
		Configuration           struct {
			Ingress *struct {
				FQDN          string `json:"fqdn"`
				External      bool   `json:"external"`
				TargetPort    int    `json:"targetPort"`
				TargetScheme  string `json:"targetPortHttpScheme"`
				ExposedPort   int    `json:"exposedPort"`
				Transport     string `json:"transport"`
				AllowInsecure bool   `json:"allowInsecure"`
				Additional    []struct {
					External    bool `json:"external"`
					TargetPort  int  `json:"targetPort"`
					ExposedPort int  `json:"exposedPort"`
				} `json:"additionalPortMappings"`
				Traffic []struct {
					RevisionName   string `json:"revisionName"`
					LatestRevision bool   `json:"latestRevision"`
					Weight         int    `json:"weight"`
					Label          string `json:"label"`
				} `json:"traffic"`
			} `json:"ingress"`
		} `json:"configuration"`
		Template struct {
			Containers []struct {
				Name      string `json:"name"`
				Image     string `json:"image"`
				Resources struct {
					CPU    float64 `json:"cpu"`
					Memory string  `json:"memory"`
				} `json:"resources"`
			} `json:"containers"`
			Scale struct {
				Min *int `json:"minReplicas"`
				Max *int `json:"maxReplicas"`
			} `json:"scale"`
		} `json:"template"`
	} `json:"properties"`
}

// images are those of all containers.
func (a *appView) images() string {
	var refs []string
	for _, c := range a.Properties.Template.Containers {
		refs = append(refs, c.Image)
	}
	return strings.Join(refs, ", ")
}

// url is where requests to the app go; "" without ingress.
func (a *appView) url(s *statusView) string {
	in := a.Properties.Configuration.Ingress
	if in == nil || in.FQDN == "" {
		return ""
	}
	if strings.EqualFold(in.Transport, "tcp") {
		return a.tcp(s, cmp.Or(in.ExposedPort, in.TargetPort), in.External)
	}
	scheme, port, usual := "https", s.HTTPSPort, 443
	if in.AllowInsecure {
		scheme, port, usual = "http", s.HTTPPort, 80
	}
	if port != 0 && port != usual {
		return scheme + "://" + in.FQDN + ":" + strconv.Itoa(port)
	}
	return scheme + "://" + in.FQDN
}

// tcp is where connections to one of the app's ports go. Any name of the machine would do outside, so it is the address
// that it listens on, which needs no resolver, unless that is all of them.
func (a *appView) tcp(s *statusView, port int, external bool) string {
	in := a.Properties.Configuration.Ingress
	host := in.FQDN
	if ip := net.ParseIP(s.TCPHost); external && s.TCPHost != "" && (ip == nil || !ip.IsUnspecified()) {
		host = s.TCPHost
	}
	return "tcp://" + net.JoinHostPort(host, strconv.Itoa(port))
}

// additional are where connections to the ports beside the main one go.
func (a *appView) additional(s *statusView) (urls []string) {
	if in := a.Properties.Configuration.Ingress; in != nil && in.FQDN != "" {
		for _, m := range in.Additional {
			urls = append(urls, a.tcp(s, cmp.Or(m.ExposedPort, m.TargetPort), m.External))
		}
	}
	return urls
}

type revisionView struct {
	Name       string `json:"name"`
	Properties struct {
		CreatedTime         time.Time `json:"createdTime"`
		Active              bool      `json:"active"`
		Replicas            int       `json:"replicas"`
		TrafficWeight       int       `json:"trafficWeight"`
		HealthState         string    `json:"healthState"`
		ProvisioningState   string    `json:"provisioningState"`
		ProvisioningError   string    `json:"provisioningError"`
		RunningState        string    `json:"runningState"`
		RunningStateDetails string    `json:"runningStateDetails"`
	} `json:"properties"`
}

type replicaView struct {
	Name       string `json:"name"`
	Properties struct {
		CreatedTime         time.Time `json:"createdTime"`
		RunningState        string    `json:"runningState"`
		RunningStateDetails string    `json:"runningStateDetails"`
		Containers          []struct {
			Name         string `json:"name"`
			Ready        bool   `json:"ready"`
			RestartCount int    `json:"restartCount"`
		} `json:"containers"`
	} `json:"properties"`
}

type environmentView struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Location   string `json:"location"`
	Properties struct {
		ProvisioningState string `json:"provisioningState"`
		DefaultDomain     string `json:"defaultDomain"`
	} `json:"properties"`
}

// storageView is a storage of an environment; one of its two is set.
type storageView struct {
	Name       string `json:"name"`
	Properties struct {
		AzureFile    *shareView `json:"azureFile"`
		NfsAzureFile *shareView `json:"nfsAzureFile"`
	} `json:"properties"`
}

type shareView struct {
	AccountName string `json:"accountName"`
	Server      string `json:"server"`
	AccessMode  string `json:"accessMode"`
	ShareName   string `json:"shareName"`
}

// statusView is GET /penstock/v1/status.
type statusView struct {
	Instance  string `json:"instance"`
	Runtime   string `json:"runtime"`
	Domain    string `json:"domain"`
	HTTPPort  int    `json:"httpPort"`
	HTTPSPort int    `json:"httpsPort"`
	TCPHost   string `json:"tcpHost"`
}

// eventView is a line of an app's event stream, in the form of Azure's.
type eventView struct {
	TimeStamp   string `json:"TimeStamp"`
	Type        string `json:"Type"`
	App         string `json:"ContainerAppName"`
	Revision    string `json:"RevisionName"`
	Execution   string `json:"ExecutionName"`
	Replica     string `json:"ReplicaName"`
	Msg         string `json:"Msg"`
	Reason      string `json:"Reason"`
	EventSource string `json:"EventSource"`
	// DurationMs is ours: how long the step took that the event ends.
	DurationMs float64 `json:"DurationMs"`
}

// lineView is a line of an app's log stream.
type lineView struct {
	TimeStamp string `json:"TimeStamp"`
	Replica   string `json:"ReplicaName"`
	Container string `json:"ContainerName"`
	Log       string `json:"Log"`
}

// clock is the time of day of a line, as it is worth reading while it happens.
func clock(stamp string) string {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05.999999999 -0700 MST"} {
		if at, err := time.Parse(layout, stamp); err == nil {
			return at.Local().Format("15:04:05.000")
		}
	}
	return stamp
}

// tail is the last part of a replica's name, which is what differs.
func tail(name string) string { return name[strings.LastIndexByte(name, '-')+1:] }

// scope is where resources are looked for.
type scope struct{ subscription, group string }

// Where resources are when nobody says otherwise. The server makes this environment at its first start.
const (
	defaultSubscription = "00000000-0000-0000-0000-000000000000"
	defaultGroup        = "default"
	defaultEnvironment  = "default"
)

func (s *scope) bind(fs *pflag.FlagSet) {
	fs.StringVar(&s.subscription, "subscription", defaultSubscription, "subscription id")
	fs.StringVarP(&s.group, "resource-group", "g", defaultGroup, "resource group")
}

// path is that of a resource in the scope: path("containerApps", "chat", "revisions").
func (s *scope) path(parts ...string) string {
	all := append([]string{"", "subscriptions", s.subscription, "resourceGroups", s.group, "providers", "Microsoft.App"}, parts...)
	for i := range all {
		all[i] = url.PathEscape(all[i])
	}
	return strings.Join(all, "/")
}

func decode[T any](doc json.RawMessage) (*T, error) {
	v := new(T)
	if err := json.Unmarshal(doc, v); err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	return v, nil
}
