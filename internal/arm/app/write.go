package app

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	"penstock/internal/resource"
)

// Time is a time whose JSON is in UTC and has at most seven decimals, as in ARM.
type Time struct{ time.Time }

func (t Time) MarshalText() ([]byte, error) {
	return []byte(t.UTC().Format("2006-01-02T15:04:05.9999999Z")), nil
}

// Site has the addresses of the server that answers contain.
type Site struct {
	// Endpoint is the URL at which the client reached the server, as in "https://localhost:8444", without a slash at the end.
	Endpoint string
	// Address is the IP address at which the ingress listens.
	Address string
}

// appType is the type of apps in Azure's spelling of their IDs. As the type of a resource it has a capital A.
const appType = "Microsoft.App/containerapps"

// NewContainerApp returns the JSON of an app. domain is that of its environment.
func NewContainerApp(a resource.App, domain string, site Site) ContainerApp {
	id := a.ID
	id.Type = appType
	tracked := newTracked(a.Meta)
	tracked.ID, tracked.Location = id.String(), displayRegion(a.Location)
	w := ContainerApp{
		Tracked:  tracked,
		Identity: &Identity{Type: "None"},
		Properties: AppProperties{
			ProvisioningState:          string(a.Provisioning()),
			ProvisioningError:          a.ProvisioningError(),
			DeploymentErrors:           a.ProvisioningError(),
			RunningStatus:              runningStatus(a),
			ManagedEnvironmentID:       a.Environment.String(),
			EnvironmentID:              a.Environment.String(),
			WorkloadProfileName:        given(&a.Profile),
			OutboundIPAddresses:        []string{},
			LatestRevisionName:         a.LatestRevision,
			LatestReadyRevisionName:    a.LatestReadyRevision,
			CustomDomainVerificationID: VerificationID(a.ID.Subscription),
			Configuration:              newConfiguration(a, domain),
			Template:                   newTemplate(a.Template),
			EventStreamEndpoint:        streamBase(site, a.ID) + "/eventstream",
		},
	}
	if a.Configuration.Ingress != nil && a.LatestRevision != "" {
		w.Properties.LatestRevisionFqdn = resource.Host(a.LatestRevision, domain, a.Configuration.Ingress.External)
	}
	return w
}

func runningStatus(a resource.App) string {
	switch {
	case a.Stopped:
		return "Stopped"
	case a.LatestReadyRevision != "":
		return "Running"
	}
	return "Progressing" // a failed revision is still retried
}

// streamBase returns the address with which those of an app's or a job's streams begin. It has no provider in it.
func streamBase(site Site, id resource.ID) string {
	_, kind, _ := strings.Cut(id.Type, "/")
	return fmt.Sprintf("%s/subscriptions/%s/resourceGroups/%s/%s/%s", site.Endpoint, id.Subscription, id.Group, kind, id.Base())
}

// VerificationID returns the value that the owner of a domain puts in a TXT record. It is the same for all apps of a
// subscription.
func VerificationID(subscription string) string {
	return fmt.Sprintf("%X", sha256.Sum256([]byte(strings.ToLower(subscription))))
}

func newConfiguration(a resource.App, domain string) *Configuration {
	c := a.Configuration
	w := &Configuration{
		ActiveRevisionsMode:  new(string(cmp.Or(c.Mode, resource.Single))),
		MaxInactiveRevisions: c.MaxInactive,
		Dapr:                 kept[Dapr](c.Stored, "dapr"),
	}
	w.Secrets, w.Registries = newSecrets(c.Secrets), newRegistries(c.Registries)
	if in := c.Ingress; in != nil {
		w.Ingress = &Ingress{
			Fqdn:                  resource.Host(a.ID.Base(), domain, in.External),
			External:              &in.External,
			TargetPort:            &in.TargetPort,
			ExposedPort:           &in.ExposedPort,
			Transport:             new(string(in.Transport)),
			TargetPortHTTPScheme:  given(&in.TargetScheme),
			Traffic:               newTraffic(a),
			AllowInsecure:         &in.AllowInsecure,
			CustomDomains:         newDomains(in.Domains),
			StickySessions:        kept[StickySessions](c.Stored, "ingress.stickySessions"),
			ClientCertificateMode: kept[string](c.Stored, "ingress.clientCertificateMode"),
		}
		for _, m := range in.Additional {
			mapping := PortMapping{External: &m.External, TargetPort: &m.TargetPort}
			if m.ExposedPort != 0 {
				mapping.ExposedPort = &m.ExposedPort
			}
			w.Ingress.AdditionalPortMappings = append(w.Ingress.AdditionalPortMappings, mapping)
		}
		writePolicy(w.Ingress, in.Policy)
	}
	return w
}

func writePolicy(w *Ingress, p resource.Policy) {
	for _, rule := range p.IPRules {
		action := "Deny"
		if rule.Allow {
			action = "Allow"
		}
		w.IPSecurityRestrictions = append(w.IPSecurityRestrictions, IPRule{
			Name: &rule.Name, Description: given(&rule.Description), IPAddressRange: &rule.Range, Action: &action,
		})
	}
	if c := p.CORS; c != nil {
		w.CorsPolicy = &CorsPolicy{
			AllowedOrigins: c.Origins, AllowedMethods: c.Methods, AllowedHeaders: c.Headers, ExposeHeaders: c.ExposedHeaders,
			MaxAge: c.MaxAge, AllowCredentials: &c.Credentials,
		}
	}
}

// newSecrets returns the JSON of secrets, with their names only.
func newSecrets(list []resource.AppSecret) (all []Secret) {
	for _, s := range list {
		all = append(all, Secret{Name: &s.Name})
	}
	return all
}

func newRegistries(list []resource.Registry) (all []Registry) {
	for _, r := range list {
		all = append(all, Registry{Server: &r.Server, Username: &r.Username, PasswordSecretRef: &r.PasswordSecretRef})
	}
	return all
}

func newTraffic(a resource.App) (all []TrafficWeight) {
	for _, t := range a.Shares() {
		w := TrafficWeight{Weight: &t.Weight, Label: given(&t.Label)}
		if t.Latest {
			w.LatestRevision = &t.Latest
		} else {
			w.RevisionName = &t.Revision
		}
		all = append(all, w)
	}
	return all
}

func newTemplate(t resource.Template) *Template {
	w := &Template{
		RevisionSuffix:                &t.RevisionSuffix,
		TerminationGracePeriodSeconds: wholeSeconds(t.Grace),
		Scale:                         newScale(t.Scale),
	}
	var milli int64
	for _, c := range t.Containers {
		milli += c.Resources.MilliCPU
	}
	disk := resource.FormatMemory(resource.EphemeralStorage(milli))
	for _, c := range t.Containers {
		w.Containers = append(w.Containers, newContainer(c, disk))
	}
	for _, v := range t.Volumes {
		volume := Volume{Name: &v.Name, StorageType: new(string(v.Type)), StorageName: given(&v.Storage), MountOptions: given(&v.MountOptions)}
		for _, f := range v.Secrets {
			volume.Secrets = append(volume.Secrets, VolumeSecret{SecretRef: &f.Secret, Path: &f.Path})
		}
		w.Volumes = append(w.Volumes, volume)
	}
	for _, c := range t.InitContainers {
		w.InitContainers = append(w.InitContainers, newInitContainer(newContainer(c, disk)))
	}
	return w
}

func newContainer(c resource.Container, disk string) Container {
	w := Container{
		Image:     &c.Image,
		ImageType: kept[string](c.Stored, "imageType"),
		Name:      &c.Name,
		Command:   c.Command,
		Args:      c.Args,
		Probes:    []Probe{},
		Resources: &Resources{
			CPU:              new(float64(c.Resources.MilliCPU) / 1000),
			Memory:           new(resource.FormatMemory(c.Resources.Memory)),
			EphemeralStorage: disk,
		},
	}
	for _, v := range c.Env {
		if v.SecretRef != "" {
			w.Env = append(w.Env, EnvVar{Name: &v.Name, Value: new(""), SecretRef: &v.SecretRef})
			continue
		}
		w.Env = append(w.Env, EnvVar{Name: &v.Name, Value: &v.Value})
	}
	for _, m := range c.Mounts {
		mount := VolumeMount{VolumeName: &m.Volume, MountPath: &m.Path}
		if m.SubPath != "" {
			mount.SubPath = &m.SubPath
		}
		w.VolumeMounts = append(w.VolumeMounts, mount)
	}
	for _, p := range c.Probes {
		w.Probes = append(w.Probes, newProbe(p))
	}
	return w
}

func newInitContainer(c Container) InitContainer {
	return InitContainer{
		Image: c.Image, ImageType: c.ImageType, Name: c.Name, Command: c.Command, Args: c.Args, Env: c.Env, Resources: c.Resources,
		VolumeMounts: c.VolumeMounts,
	}
}

func newProbe(p resource.Probe) Probe {
	w := Probe{
		Type:                new(string(p.Type)),
		FailureThreshold:    &p.FailureThreshold,
		InitialDelaySeconds: wholeSeconds(p.InitialDelay),
		PeriodSeconds:       wholeSeconds(p.Period),
		SuccessThreshold:    &p.SuccessThreshold,
		TimeoutSeconds:      wholeSeconds(p.Timeout),
	}
	if p.Grace > 0 {
		w.TerminationGracePeriodSeconds = wholeSeconds(p.Grace)
	}
	if h := p.HTTP; h != nil {
		w.HTTPGet = &HTTPGet{Path: &h.Path, Port: &h.Port, Scheme: &h.Scheme}
		if h.Host != "" {
			w.HTTPGet.Host = &h.Host
		}
		for _, header := range h.Headers {
			w.HTTPGet.HTTPHeaders = append(w.HTTPGet.HTTPHeaders, Header{Name: &header.Name, Value: &header.Value})
		}
	}
	if s := p.TCP; s != nil {
		w.TCPSocket = &TCPSocket{Port: &s.Port}
	}
	return w
}

func wholeSeconds(d time.Duration) *int { return new(int(d / time.Second)) }

// environmentState returns a provisioning state in Azure's words for environments.
func environmentState(e resource.Environment) string {
	switch {
	case e.Provisioning() == resource.Deleting:
		return "ScheduledForDelete"
	case e.Provisioning() == resource.InProgress && e.Generation > 1:
		return "Updating"
	case e.Provisioning() == resource.InProgress:
		return "InitializationInProgress"
	}
	return string(e.Provisioning())
}

// newEnvironmentIngress returns nil for an environment without ingress settings.
func newEnvironmentIngress(e resource.Environment) *EnvironmentIngress {
	w := EnvironmentIngress{WorkloadProfileName: kept[string](e.Stored, "ingressConfiguration.workloadProfileName")}
	if t := e.Ingress.IdleTimeout; t > 0 {
		w.RequestIdleTimeout = new(int(t / time.Minute))
	}
	if n := e.Ingress.MaxHeaders; n > 0 {
		w.HeaderCountLimit = new(n)
	}
	if w == (EnvironmentIngress{}) {
		return nil
	}
	return &w
}

// NewEnvironment returns the JSON of an environment.
func NewEnvironment(e resource.Environment, site Site) Environment {
	return Environment{
		Tracked: newTracked(e.Meta),
		Sku:     &Sku{Name: new("Consumption")},
		Properties: EnvironmentProperties{
			ProvisioningState:           environmentState(e),
			DefaultDomain:               e.DefaultDomain,
			EventStreamEndpoint:         site.Endpoint + "/subscriptions/" + e.ID.Subscription + "/resourceGroups/" + e.ID.Group + "/managedEnvironments/" + e.ID.Base() + "/eventstream",
			StaticIP:                    site.Address,
			AppLogsConfiguration:        kept[AppLogs](e.Stored, "appLogsConfiguration"),
			ZoneRedundant:               new(or(kept[bool](e.Stored, "zoneRedundant"), false)),
			VnetConfiguration:           kept[Vnet](e.Stored, "vnetConfiguration"),
			InfrastructureResourceGroup: kept[string](e.Stored, "infrastructureResourceGroup"),
			PublicNetworkAccess:         kept[string](e.Stored, "publicNetworkAccess"),
			WorkloadProfiles:            newProfiles(e.Profiles),
			IngressConfiguration:        newEnvironmentIngress(e),
			CustomDomainConfiguration:   &CustomDomain{CustomDomainVerificationID: VerificationID(e.ID.Subscription)},
			PeerAuthentication:          &PeerAuthentication{MTLS: &Switch{Enabled: new(false)}},
			PeerTrafficConfiguration:    &PeerTraffic{Encryption: &Switch{Enabled: new(false)}},
		},
	}
}
