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

	"penstock/internal/admin/wire"
	"penstock/internal/resource"
)

// The views hold the fields of the server's responses that commands read. `-o json` prints the responses unchanged.

type appView struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Tags       map[string]string `json:"tags"`
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

// images returns the images of all containers.
func (a *appView) images() string {
	var refs []string
	for _, c := range a.Properties.Template.Containers {
		refs = append(refs, c.Image)
	}
	return strings.Join(refs, ", ")
}

// url returns the app's URL, or "" if it has no ingress.
func (a *appView) url(s *wire.Status) string {
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

// hostURL returns the URL of the app's own port on the server's machine, or "" if it has none.
func (a *appView) hostURL() string {
	port := (resource.App{Meta: resource.Meta{Tags: a.Tags}}).HostPort()
	if port == 0 {
		return ""
	}
	return "http://127.0.0.1:" + strconv.Itoa(port)
}

// labelURL returns the URL of a label. Its host is <app>---<label>, as in Azure.
func (a *appView) labelURL(s *wire.Status, label string) string {
	in := a.Properties.Configuration.Ingress
	name, domain, ok := strings.Cut(in.FQDN, ".")
	if !ok || strings.EqualFold(in.Transport, "tcp") {
		return ""
	}
	return strings.Replace(a.url(s), name+"."+domain, resource.LabelHost(name, label)+"."+domain, 1)
}

// tcp returns the URL of one of the app's TCP ports. It uses the address that the server listens on, which needs no name
// lookup, unless the server listens on all addresses.
func (a *appView) tcp(s *wire.Status, port int, external bool) string {
	in := a.Properties.Configuration.Ingress
	host := in.FQDN
	if ip := net.ParseIP(s.TCPHost); external && s.TCPHost != "" && (ip == nil || !ip.IsUnspecified()) {
		host = s.TCPHost
	}
	return "tcp://" + net.JoinHostPort(host, strconv.Itoa(port))
}

// additional returns the URLs of the additional ports.
func (a *appView) additional(s *wire.Status) (urls []string) {
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
		CreatedTime       time.Time `json:"createdTime"`
		Active            bool      `json:"active"`
		Replicas          int       `json:"replicas"`
		TrafficWeight     int       `json:"trafficWeight"`
		HealthState       string    `json:"healthState"`
		ProvisioningState string    `json:"provisioningState"`
		ProvisioningError string    `json:"provisioningError"`
		RunningState      string    `json:"runningState"`
	} `json:"properties"`
}

type replicaView struct {
	Name       string `json:"name"`
	Properties struct {
		CreatedTime         time.Time              `json:"createdTime"`
		RunningState        string                 `json:"runningState"`
		RunningStateDetails string                 `json:"runningStateDetails"`
		Containers          []replicaContainerView `json:"containers"`
	} `json:"properties"`
}

type replicaContainerView struct {
	Name         string `json:"name"`
	Ready        bool   `json:"ready"`
	RestartCount int    `json:"restartCount"`
}

type environmentView struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Location   string `json:"location"`
	Properties struct {
		ProvisioningState string        `json:"provisioningState"`
		DefaultDomain     string        `json:"defaultDomain"`
		Profiles          []profileView `json:"workloadProfiles"`
	} `json:"properties"`
}

// profileView is a workload profile of an environment.
type profileView struct {
	Name string `json:"name"`
	Type string `json:"workloadProfileType"`
	Min  *int   `json:"minimumCount,omitempty"`
	Max  *int   `json:"maximumCount,omitempty"`
}

// storageView is a storage of an environment. One of AzureFile and NfsAzureFile is set.
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

// eventView is a line of an app's event stream, in Azure's format.
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
	// DurationMs is our addition: how long the step took that ended with this event.
	DurationMs float64 `json:"DurationMs"`
}

// lineView is a line of an app's log stream.
type lineView struct {
	TimeStamp string `json:"TimeStamp"`
	Replica   string `json:"ReplicaName"`
	Container string `json:"ContainerName"`
	Log       string `json:"Log"`
}

// clock formats a timestamp as the local time of day.
func clock(stamp string) string {
	if at, ok := parseStamp(stamp); ok {
		return at.Local().Format("15:04:05.000")
	}
	return stamp
}

// parseStamp reads the time of an event or a line. Azure's streams write it in two ways.
func parseStamp(stamp string) (at time.Time, ok bool) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05.999999999 -0700 MST"} {
		if at, err := time.Parse(layout, stamp); err == nil {
			return at, true
		}
	}
	return time.Time{}, false
}

// tail returns the last part of a replica's name, in which replicas differ.
func tail(name string) string { return name[strings.LastIndexByte(name, '-')+1:] }

// scope is the subscription and resource group that commands work in.
type scope struct{ subscription, group string }

// Default subscription, resource group and environment. The server creates the environment at its first start.
const (
	defaultSubscription = "00000000-0000-0000-0000-000000000000"
	defaultGroup        = "default"
	defaultEnvironment  = "default"
)

func (s *scope) bind(fs *pflag.FlagSet) {
	fs.StringVar(&s.subscription, "subscription", defaultSubscription, "subscription ID")
	fs.StringVarP(&s.group, "resource-group", "g", defaultGroup, "resource group")
}

// path returns the path of a resource in the scope, as in path("containerApps", "chat", "revisions").
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
