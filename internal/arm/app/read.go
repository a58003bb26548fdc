package app

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"penstock/internal/resource"
)

// The defaults that the server fills in (learn.microsoft.com/azure/container-apps/containers and .../scale-app).
const (
	defaultCPU         = 0.25
	defaultMemory      = "0.5Gi"
	defaultMaxReplicas = 10
	defaultGrace       = 30 * time.Second
)

// Kubernetes' defaults for probes, which Container Apps documents as its own.
const (
	defaultPeriod           = 10
	defaultTimeout          = 1
	defaultFailureThreshold = 3
	defaultSuccessThreshold = 1
)

// reader converts a decoded document to a resource. It has the faults of decoding, and adds its own.
type reader struct{ decoder }

// decodeBody decodes body into the struct that into points at. schema is the code of faults in its shape. ok is false when
// the body is not a JSON object.
func decodeBody(body []byte, fields []Field, schema string, into any) (r *reader, ok bool) {
	r = &reader{decoder{fields: fields, schema: schema, root: reflect.TypeOf(into).Elem()}}
	doc, err := parse(body)
	if err != nil {
		r.fault(codeBody, "", "%v", err)
		return r, false
	}
	if doc.kind != object {
		r.fault(codeBody, "", "want a resource as a JSON object, got %s", doc)
		return r, false
	}
	r.decode(doc, reflect.ValueOf(into).Elem(), "", "")
	return r, true
}

// add adds faults, except faults of fields that have one already.
func (r *reader) add(faults ...resource.Fault) {
	for _, f := range faults {
		if !slices.ContainsFunc(r.faults, func(known resource.Fault) bool { return within(f.Field, known.Field) }) {
			r.faults = append(r.faults, f)
		}
	}
}

// spoiled says whether the field, or a field in it, has a fault.
func (r *reader) spoiled(field string) bool {
	return slices.ContainsFunc(r.faults, func(f resource.Fault) bool { return within(f.Field, field) })
}

// within says whether field is the same as other, or a field in it.
func within(field, other string) bool {
	rest, ok := strings.CutPrefix(field, other)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

func (r *reader) err() error {
	if len(r.faults) == 0 {
		return nil
	}
	return &resource.InvalidError{Faults: r.faults}
}

// ReadApp reads the body of a PUT to id. notes has a sentence for each field that is stored without effect. err is a
// *resource.InvalidError with all faults. The app's environment need not exist.
func ReadApp(id resource.ID, body []byte) (a resource.App, notes []string, err error) {
	var w ContainerApp
	r, ok := decodeBody(body, appFields(), codeSchema, &w)
	if !ok {
		return a, nil, r.err()
	}
	a.Meta = r.tracked(id, w.Tracked)
	a.Environment = r.environmentID(w.Properties)
	a.Profile = or(w.Properties.WorkloadProfileName, "")
	if c := w.Properties.Configuration; c != nil {
		a.Configuration = r.configuration(*c)
	}
	if t := w.Properties.Template; t != nil {
		a.Template = r.template(*t)
		r.notes = append(r.notes, a.Template.Scale.Remarks()...)
	} else {
		r.add(resource.Fault{Code: codeValue, Field: "template", Message: "want the containers of the app, got nothing"})
	}
	r.add(resource.ValidateApp(a)...)
	if _, err := resource.ParseSettings(nil, a.Tags); err != nil {
		r.addError(err)
	}
	return a, r.notes, r.err()
}

func (r *reader) addError(err error) {
	if invalid, ok := errors.AsType[*resource.InvalidError](err); ok {
		r.add(invalid.Faults...)
	}
}

func (r *reader) environmentID(p AppProperties) resource.ID {
	field, s := "properties.environmentId", p.EnvironmentID
	if s == "" {
		field, s = "properties.managedEnvironmentId", p.ManagedEnvironmentID
	}
	if s == "" {
		r.add(resource.Fault{Code: codeValue, Field: "properties.environmentId", Message: "want the ID of the environment that the app is in, got nothing"})
		return resource.ID{}
	}
	id, err := resource.ParseID(s)
	if err != nil || !id.Is(resource.TypeEnvironment) {
		r.add(resource.Fault{Code: "LinkedInvalidPropertyId", Field: field, Message: fmt.Sprintf(
			"Property id '%s' at path '%s' is invalid. Expect fully qualified resource Id that start with '/subscriptions/{subscriptionId}' and names a %s.", s, field, resource.TypeEnvironment)})
		return resource.ID{}
	}
	if other, err := resource.ParseID(p.ManagedEnvironmentID); p.ManagedEnvironmentID != "" && (err != nil || other.Key() != id.Key()) {
		r.add(resource.Fault{Code: codeValue, Field: "properties.managedEnvironmentId", Message: fmt.Sprintf("want the same as environmentId, the new name of this field, got %q", p.ManagedEnvironmentID)})
	}
	return id
}

func (r *reader) configuration(w Configuration) resource.Configuration {
	var c resource.Configuration
	c.Secrets, c.Registries = r.secrets(w.Secrets), registries(w.Registries)
	if in := w.Ingress; in != nil {
		c.Ingress = &resource.Ingress{
			External:      or(in.External, false),
			TargetPort:    or(in.TargetPort, 0),
			ExposedPort:   or(in.ExposedPort, 0),
			Transport:     enum(r, "configuration.ingress.transport", in.Transport, resource.TransportAuto, resource.TransportAuto, resource.TransportHTTP, resource.TransportHTTP2, resource.TransportTCP),
			TargetScheme:  enum(r, "configuration.ingress.targetPortHttpScheme", in.TargetPortHTTPScheme, "", "http", resource.SchemeHTTPS),
			AllowInsecure: or(in.AllowInsecure, false),
		}
		for _, m := range in.AdditionalPortMappings {
			c.Ingress.Additional = append(c.Ingress.Additional, resource.PortMapping{
				External: or(m.External, false), TargetPort: or(m.TargetPort, 0), ExposedPort: or(m.ExposedPort, 0),
			})
		}
		for _, t := range in.Traffic {
			c.Ingress.Traffic = append(c.Ingress.Traffic, resource.Traffic{
				Revision: or(t.RevisionName, ""), Latest: or(t.LatestRevision, false), Weight: or(t.Weight, 0), Label: or(t.Label, ""),
			})
		}
		c.Ingress.Policy = r.policy(in)
		c.Ingress.Domains = r.domains(in.CustomDomains)
		keep(&c.Stored, "ingress.stickySessions", in.StickySessions)
		keep(&c.Stored, "ingress.clientCertificateMode", in.ClientCertificateMode)
	}
	c.Mode = enum(r, "configuration.activeRevisionsMode", w.ActiveRevisionsMode, resource.Single, resource.Single, resource.Multiple)
	if c.Ingress != nil && c.Mode == resource.Single {
		if t := c.Ingress.Traffic; len(t) > 0 && !slices.Equal(t, []resource.Traffic{{Latest: true, Weight: 100}}) {
			r.notes = append(r.notes, "configuration.ingress.traffic has no effect in Single revision mode: all requests go to the latest ready revision")
		}
		c.Ingress.Traffic = nil
	}
	if n := w.MaxInactiveRevisions; n != nil && (*n < 0 || *n > 100) {
		r.add(resource.Fault{Code: codeValue, Field: "configuration.maxInactiveRevisions", Message: fmt.Sprintf("want 0 to 100, got %d", *n)})
	}
	c.MaxInactive = w.MaxInactiveRevisions
	if or(w.Dapr, Dapr{}) != (Dapr{}) {
		keep(&c.Stored, "dapr", w.Dapr)
	}
	return c
}

// policy converts the rules for requests to an app.
func (r *reader) policy(in *Ingress) resource.Policy {
	const field = "configuration.ingress."
	p := resource.Policy{
		ClientCertificates: enum(r, field+"clientCertificateMode", in.ClientCertificateMode, "",
			resource.ClientCertificatesAccept, resource.ClientCertificatesRequire, "ignore"),
	}
	if p.ClientCertificates == "ignore" {
		p.ClientCertificates = ""
	}
	if s := in.StickySessions; s != nil {
		p.Sticky = enum(r, field+"stickySessions.affinity", s.Affinity, "none", "sticky", "none") == "sticky"
	}
	for i, rule := range in.IPSecurityRestrictions {
		at := fmt.Sprintf("%sipSecurityRestrictions[%d]", field, i)
		if or(rule.Action, "") == "" {
			r.add(resource.Fault{Code: codeValue, Field: at + ".action", Message: "want Allow or Deny, got nothing"})
		}
		p.IPRules = append(p.IPRules, resource.IPRule{
			Name: or(rule.Name, ""), Description: or(rule.Description, ""), Range: or(rule.IPAddressRange, ""),
			Allow: enum(r, at+".action", rule.Action, "Allow", "Allow", "Deny") == "Allow",
		})
	}
	if c := in.CorsPolicy; c != nil && !reflect.ValueOf(*c).IsZero() {
		p.CORS = &resource.CORS{
			Origins: c.AllowedOrigins, Methods: c.AllowedMethods, Headers: c.AllowedHeaders, ExposedHeaders: c.ExposeHeaders,
			MaxAge: c.MaxAge, Credentials: or(c.AllowCredentials, false),
		}
	}
	return p
}

func (r *reader) secrets(list []Secret) (all []resource.AppSecret) {
	for i, s := range list {
		if strings.Contains(or(s.Value, ""), "\x00") {
			r.add(resource.Fault{Code: codeValue, Field: fmt.Sprintf("configuration.secrets[%d].value", i), Message: "want text without NUL characters"})
		}
		if s.Value != nil && *s.Value == "" {
			r.add(resource.Fault{Code: "ContainerAppSecretInvalid", Field: fmt.Sprintf("configuration.secrets[%d].value", i),
				Message: fmt.Sprintf("Container app secret(s) with name(s) '%s' are invalid: value or keyVaultUrl and identity should be provided. Leave value out to keep the stored one.", or(s.Name, ""))})
		}
		all = append(all, resource.AppSecret{Name: or(s.Name, ""), Value: resource.Secret(or(s.Value, ""))})
	}
	return all
}

func registries(list []Registry) (all []resource.Registry) {
	for _, w := range list {
		all = append(all, resource.Registry{Server: or(w.Server, ""), Username: or(w.Username, ""), PasswordSecretRef: or(w.PasswordSecretRef, "")})
	}
	return all
}

func (r *reader) template(w Template) resource.Template {
	t := resource.Template{
		RevisionSuffix: or(w.RevisionSuffix, ""),
		Grace:          defaultGrace,
		Scale:          resource.Scale{Max: defaultMaxReplicas, Cooldown: resource.DefaultCooldown, Polling: resource.DefaultPolling},
	}
	if w.TerminationGracePeriodSeconds != nil {
		t.Grace = seconds(*w.TerminationGracePeriodSeconds)
	}
	if s := w.Scale; s != nil {
		t.Scale.Min, t.Scale.Max = or(s.MinReplicas, 0), or(s.MaxReplicas, defaultMaxReplicas)
		t.Scale.ZeroMin = s.MinReplicas != nil && *s.MinReplicas == 0
		for _, wait := range []struct {
			name string
			got  *int
			into *time.Duration
		}{{"cooldownPeriod", s.CooldownPeriod, &t.Scale.Cooldown}, {"pollingInterval", s.PollingInterval, &t.Scale.Polling}} {
			switch {
			case wait.got == nil:
			case *wait.got < 0 || *wait.got > 86400:
				r.add(resource.Fault{Code: codeValue, Field: "template.scale." + wait.name, Message: fmt.Sprintf("want 0 to 86400 seconds, got %d", *wait.got)})
			default:
				*wait.into = seconds(*wait.got)
			}
		}
		for i, rule := range s.Rules {
			t.Scale.Rules = append(t.Scale.Rules, r.rule(fmt.Sprintf("template.scale.rules[%d]", i), rule))
		}
	}
	for i, c := range w.Containers {
		t.Containers = append(t.Containers, r.container(fmt.Sprintf("template.containers[%d]", i), c))
	}
	for i, v := range w.Volumes {
		t.Volumes = append(t.Volumes, r.volume(fmt.Sprintf("template.volumes[%d]", i), v))
	}
	for i, c := range w.InitContainers {
		t.InitContainers = append(t.InitContainers, r.container(fmt.Sprintf("template.initContainers[%d]", i), c.container()))
	}
	return t
}

// volume converts a volume. A volume without a type is an EmptyDir, as in Azure.
func (r *reader) volume(field string, w Volume) resource.Volume {
	v := resource.Volume{
		Name:         or(w.Name, ""),
		Type:         enum(r, field+".storageType", w.StorageType, resource.EmptyDir, resource.EmptyDir, resource.SecretFiles, resource.AzureFile, resource.NfsAzureFile),
		Storage:      or(w.StorageName, ""),
		MountOptions: or(w.MountOptions, ""),
	}
	for _, s := range w.Secrets {
		v.Secrets = append(v.Secrets, resource.SecretFile{Secret: or(s.SecretRef, ""), Path: or(given(s.Path), or(s.SecretRef, ""))})
	}
	return v
}

// container converts the fields that containers and init containers have in common, which are all but probes.
func (w InitContainer) container() Container {
	return Container{
		Image: w.Image, ImageType: w.ImageType, Name: w.Name, Command: w.Command, Args: w.Args, Env: w.Env, Resources: w.Resources,
		VolumeMounts: w.VolumeMounts,
	}
}

func (r *reader) container(field string, w Container) resource.Container {
	c := resource.Container{
		Name:    or(w.Name, ""),
		Image:   or(w.Image, ""),
		Command: some(w.Command),
		Args:    some(w.Args),
	}
	keep(&c.Stored, "imageType", given(w.ImageType))
	for i, v := range w.Env {
		if v.Name == nil {
			r.add(resource.Fault{Code: codeValue, Field: fmt.Sprintf("%s.env[%d].name", field, i), Message: "want a name, got nothing"})
		}
		c.Env = append(c.Env, resource.EnvVar{Name: or(v.Name, ""), Value: or(v.Value, ""), SecretRef: or(v.SecretRef, "")})
	}
	size := Resources{}
	if w.Resources != nil {
		size = *w.Resources
	}
	c.DefaultSize = size.CPU == nil && size.Memory == nil
	at := field + ".resources"
	if !r.spoiled(at) { // otherwise it stays 0 and does not count in the sum
		var err error
		if c.Resources.MilliCPU, err = resource.ParseCPU(or(size.CPU, defaultCPU)); err != nil {
			r.add(resource.Fault{Code: "ContainerAppInvalidCpuResource", Field: at + ".cpu", Message: err.Error()})
		}
		c.Resources.Memory, err = resource.ParseMemory(or(size.Memory, defaultMemory))
		if err == nil && c.Resources.Memory == 0 {
			err = fmt.Errorf("want more than 0, got %q", or(size.Memory, ""))
		}
		if err != nil {
			r.add(resource.Fault{Code: codeValue, Field: at + ".memory", Message: err.Error()})
		}
	}
	for _, m := range w.VolumeMounts {
		c.Mounts = append(c.Mounts, resource.VolumeMount{Volume: or(m.VolumeName, ""), Path: or(m.MountPath, ""), SubPath: or(m.SubPath, "")})
	}
	for i, p := range w.Probes {
		c.Probes = append(c.Probes, r.probe(fmt.Sprintf("%s.probes[%d]", field, i), p))
	}
	return c
}

func (r *reader) probe(field string, w Probe) resource.Probe {
	p := resource.Probe{
		Type:             enum(r, field+".type", w.Type, "", resource.Startup, resource.Readiness, resource.Liveness),
		InitialDelay:     seconds(or(w.InitialDelaySeconds, 0)),
		Period:           seconds(or(w.PeriodSeconds, defaultPeriod)),
		Timeout:          seconds(or(w.TimeoutSeconds, defaultTimeout)),
		FailureThreshold: or(w.FailureThreshold, defaultFailureThreshold),
		SuccessThreshold: or(w.SuccessThreshold, defaultSuccessThreshold),
	}
	if g := w.TerminationGracePeriodSeconds; g != nil {
		p.Grace = seconds(*g)
		if *g == 0 {
			r.add(resource.Fault{Code: codeValue, Field: field + ".terminationGracePeriodSeconds", Message: "want 1 to 3600, got 0"})
		}
	}
	if w.Type == nil {
		r.add(resource.Fault{Code: codeValue, Field: field + ".type", Message: "want Startup, Readiness or Liveness, got nothing"})
	}
	if h := w.HTTPGet; h != nil {
		p.HTTP = &resource.HTTPGet{
			Path:   or(given(h.Path), "/"),
			Port:   or(h.Port, 0),
			Scheme: enum(r, field+".httpGet.scheme", h.Scheme, "HTTP", "HTTP", "HTTPS"),
			Host:   or(h.Host, ""),
		}
		for _, header := range h.HTTPHeaders {
			p.HTTP.Headers = append(p.HTTP.Headers, resource.Header{Name: or(header.Name, ""), Value: or(header.Value, "")})
		}
	}
	if s := w.TCPSocket; s != nil {
		p.TCP = &resource.TCPSocket{Port: or(s.Port, 0)}
	}
	return p
}

// ReadEnvironment reads the body of a PUT to id, as ReadApp does.
func ReadEnvironment(id resource.ID, body []byte) (e resource.Environment, notes []string, err error) {
	var w Environment
	r, ok := decodeBody(body, environmentFields(), "ManagedEnvironmentInvalidSchema", &w)
	if !ok {
		return e, nil, r.err()
	}
	e.Meta = r.tracked(id, w.Tracked)
	r.located(e.Meta)
	p := w.Properties
	if a := p.AppLogsConfiguration; a != nil {
		enum(r, "properties.appLogsConfiguration.destination", a.Destination, "", "log-analytics", "azure-monitor", "none")
	}
	keep(&e.Stored, "appLogsConfiguration", p.AppLogsConfiguration)
	keep(&e.Stored, "zoneRedundant", p.ZoneRedundant)
	keep(&e.Stored, "vnetConfiguration", p.VnetConfiguration)
	keep(&e.Stored, "infrastructureResourceGroup", given(p.InfrastructureResourceGroup))
	keep(&e.Stored, "publicNetworkAccess", given(p.PublicNetworkAccess))
	e.Profiles = r.profiles(p.WorkloadProfiles)
	if in := p.IngressConfiguration; in != nil {
		e.Ingress = r.environmentIngress(in)
		keep(&e.Stored, "ingressConfiguration.workloadProfileName", given(in.WorkloadProfileName))
	}
	if f := resource.ValidateEnvironmentName(id.Base()); f != nil {
		r.add(*f)
	}
	r.add(resource.ValidateTags(e.Tags)...)
	if _, err := resource.ParseSettings(e.Tags, nil); err != nil {
		r.addError(err)
	}
	return e, r.notes, r.err()
}

// The limits of learn.microsoft.com/azure/container-apps/premium-ingress.
const (
	leastIdleMinutes = 4
	mostIdleMinutes  = 30
)

// environmentIngress converts the ingress settings of an environment.
func (r *reader) environmentIngress(in *EnvironmentIngress) (e resource.EnvironmentIngress) {
	const field = "properties.ingressConfiguration."
	if n := in.RequestIdleTimeout; n != nil {
		if *n < leastIdleMinutes || *n > mostIdleMinutes {
			r.add(resource.Fault{Code: codeEnvironmentValue, Field: field + "requestIdleTimeout", Message: fmt.Sprintf("want %d to %d minutes, got %d", leastIdleMinutes, mostIdleMinutes, *n)})
		}
		e.IdleTimeout = time.Duration(*n) * time.Minute
	}
	if n := in.HeaderCountLimit; n != nil {
		if *n < 1 {
			r.add(resource.Fault{Code: codeEnvironmentValue, Field: field + "headerCountLimit", Message: fmt.Sprintf("want 1 or more, got %d", *n)})
		}
		e.MaxHeaders = *n
	}
	return e
}

// keep stores a value, if there is one, as the JSON with which it is returned.
func keep[T any](stored *map[string]json.RawMessage, name string, v *T) {
	if v == nil {
		return
	}
	text, err := json.Marshal(v)
	if err != nil {
		return // does not happen: the types are strings, numbers and structs of them
	}
	if *stored == nil {
		*stored = map[string]json.RawMessage{}
	}
	(*stored)[name] = text
}

// kept returns a value that keep has stored, or nil.
func kept[T any](stored map[string]json.RawMessage, name string) *T {
	text, ok := stored[name]
	if !ok {
		return nil
	}
	v := new(T)
	if err := json.Unmarshal(text, v); err != nil {
		return nil
	}
	return v
}

func or[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

// given returns nil for an empty text.
func given(s *string) *string {
	if s == nil || *s == "" {
		return nil
	}
	return s
}

// some returns nil for an empty list, so that templates with the same meaning are equal.
func some[T any](list []T) []T {
	if len(list) == 0 {
		return nil
	}
	return list
}

func seconds(n int) time.Duration {
	// A Duration overflows after 292 years. This bound is far beyond every limit that is checked later.
	return time.Duration(min(max(n, -1<<32), 1<<32)) * time.Second
}

// enum returns the value of Azure that s is, in any case.
func enum[T ~string](r *reader, field string, s *string, otherwise T, values ...T) T {
	if s == nil || *s == "" {
		return otherwise
	}
	for _, v := range values {
		if strings.EqualFold(*s, string(v)) {
			return v
		}
	}
	names := make([]string, len(values))
	for i, v := range values {
		names[i] = string(v)
	}
	r.add(resource.Fault{Code: codeValue, Field: field, Message: fmt.Sprintf("want %s, got %q", strings.Join(names, " or "), *s)})
	return cmp.Or(otherwise, values[0])
}
