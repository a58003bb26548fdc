package resource

import (
	"fmt"
	"net/netip"
	"strings"
)

// Transport is the protocol between the ingress and a replica.
type Transport string

const (
	TransportAuto Transport = "Auto"
	TransportHTTP Transport = "Http"
	// TransportHTTP2 is HTTP/2 without TLS, with prior knowledge.
	TransportHTTP2 Transport = "Http2"
	// TransportTCP copies bytes in both directions and knows nothing of HTTP.
	TransportTCP Transport = "Tcp"
)

// SchemeHTTPS means that replicas speak TLS.
const SchemeHTTPS = "https"

// Ingress says how HTTP requests or TCP connections reach an app.
type Ingress struct {
	External bool
	// TargetPort is the port that the app listens on. 0 means that the platform finds it out.
	TargetPort int
	// ExposedPort is the port that clients of a TCP app connect to. 0 means TargetPort.
	ExposedPort int `json:",omitempty"`
	Transport   Transport
	// Additional are more TCP ports.
	Additional []PortMapping `json:",omitempty"`
	// TargetScheme is what replicas speak: "https" or "http". "" means "http".
	TargetScheme  string `json:",omitempty"`
	AllowInsecure bool
	Traffic       []Traffic `json:",omitempty"`
	// Domains are custom host names, beside the one below the domain of the environment.
	Domains []CustomDomain `json:",omitempty"`
	Policy
}

// Serving returns what revisions need to know of the ingress. in is nil for an app without ingress.
func (in *Ingress) Serving() Serving {
	if in == nil {
		return Serving{}
	}
	return Serving{TargetPort: in.TargetPort, DetectPort: in.TargetPort == 0, TLS: in.TargetScheme == SchemeHTTPS}
}

// Host returns the host name of the app, label or revision with that name. Clients outside the environment can only use
// it when the ingress is external. It is "" while the environment has no domain.
func Host(name, domain string, external bool) string {
	switch {
	case domain == "":
		return ""
	case external:
		return name + "." + domain
	}
	return name + ".internal." + domain
}

// PortMapping is an additional TCP port.
type PortMapping struct {
	External    bool
	TargetPort  int
	ExposedPort int // 0: TargetPort
}

// ExposedPort is a TCP port of an app that clients connect to.
type ExposedPort struct {
	Field    string // of the manifest that has the number
	External bool
	Port     int
	// TargetPort is the port of the replicas. It is 0 for the main port, whose target port is stored in each revision.
	TargetPort int
	// Host is set for a port that the tag penstock.host-port asks for. It speaks HTTP, is open on loopback only, and
	// replicas do not see it.
	Host bool
}

// ExposedPorts returns all TCP ports of an app.
func (in *Ingress) ExposedPorts() (all []ExposedPort) {
	if in == nil {
		return nil
	}
	const field = "configuration.ingress"
	named := func(at string, exposed, target int) (int, string) {
		if exposed == 0 {
			return target, at + ".targetPort"
		}
		return exposed, at + ".exposedPort"
	}
	if in.Transport == TransportTCP {
		p := ExposedPort{External: in.External}
		p.Port, p.Field = named(field, in.ExposedPort, in.TargetPort)
		all = append(all, p)
	}
	for i, m := range in.Additional {
		p := ExposedPort{External: m.External, TargetPort: m.TargetPort}
		p.Port, p.Field = named(fmt.Sprintf("%s.additionalPortMappings[%d]", field, i), m.ExposedPort, m.TargetPort)
		all = append(all, p)
	}
	return all
}

// Policy has the rules for requests to an app, which are the same for all its revisions.
type Policy struct {
	// IPRules allow or deny client IP ranges. Either all of them allow, or all of them deny.
	IPRules []IPRule `json:",omitempty"`
	CORS    *CORS    `json:",omitempty"`
	// Sticky sends all requests of a client to the same replica, by a cookie.
	Sticky bool `json:",omitempty"`
	// ClientCertificates says whether TLS clients are asked for a certificate. "" means that they are not.
	ClientCertificates ClientCertificates `json:",omitempty"`
}

// IPRule allows or denies a range of client addresses.
type IPRule struct {
	Name        string
	Description string `json:",omitempty"`
	Range       string // IPv4, "192.0.2.0/24" or "192.0.2.1"
	Allow       bool
}

// Prefix returns the range of the rule.
func (r IPRule) Prefix() (netip.Prefix, error) {
	if a, err := netip.ParseAddr(r.Range); err == nil && a.Is4() {
		return a.Prefix(32)
	}
	p, err := netip.ParsePrefix(r.Range)
	if err != nil || !p.Addr().Is4() {
		return netip.Prefix{}, fmt.Errorf("want a range of IPv4 addresses such as 192.0.2.0/24, got %q", r.Range)
	}
	return p.Masked(), nil
}

// CORS says which pages of other origins can call an app from a browser.
type CORS struct {
	Origins        []string // "https://chat.example", "https://*.chat.example" for all below, or "*" for all
	Methods        []string `json:",omitempty"`
	Headers        []string `json:",omitempty"`
	ExposedHeaders []string `json:",omitempty"`
	MaxAge         *int     `json:",omitempty"` // seconds
	Credentials    bool     `json:",omitempty"`
}

// ClientCertificates says whether TLS clients are asked for a certificate.
type ClientCertificates string

const (
	ClientCertificatesAccept  ClientCertificates = "accept"
	ClientCertificatesRequire ClientCertificates = "require"
)

func validateIngress(a App) []Fault {
	in := a.Configuration.Ingress
	if in == nil {
		return nil
	}
	const field = "configuration.ingress"
	var faults []Fault
	bad := func(at, format string, args ...any) {
		faults = append(faults, Fault{codeValue, field + at, fmt.Sprintf(format, args...)})
	}
	if in.TargetPort < 0 || in.TargetPort > 65535 {
		bad(".targetPort", "want 1 to 65535, or 0 to find out the port that the app listens on, got %d", in.TargetPort)
	}
	faults = append(faults, validatePorts(in)...)
	if in.Transport == TransportTCP {
		validateTCP(a, bad)
	}
	validateDomains(in.Domains, bad)
	for i, r := range in.IPRules {
		at := fmt.Sprintf(".ipSecurityRestrictions[%d]", i)
		if r.Name == "" {
			bad(at+".name", "want a name, got none")
		}
		if _, err := r.Prefix(); err != nil {
			bad(at+".ipAddressRange", "%v", err)
		}
		if r.Allow != in.IPRules[0].Allow {
			bad(at+".action", "want one action in all rules: Allow, which denies all other addresses, or Deny")
		}
	}
	if c := in.CORS; c != nil {
		validateCORS(c, bad)
	}
	if in.Sticky && a.Configuration.Mode == Multiple {
		faults = append(faults, Fault{"ContainerAppInvalidIngressStickySessionRevisionMode", field + ".stickySessions.affinity",
			"sticky sessions need activeRevisionsMode Single, got Multiple"})
	}
	return faults
}

// maxAdditional is how many TCP ports an app can have beside its main one
// (learn.microsoft.com/azure/container-apps/ingress-overview, "Additional TCP ports").
const maxAdditional = 5

// closedPort returns why a port cannot be exposed, or "" when it can.
func closedPort(number int) string {
	switch number {
	case 80, 443: // learn.microsoft.com/azure/container-apps/ingress-how-to, exposedPort
		return "which HTTP apps have"
	case 36985: // learn.microsoft.com/azure/container-apps/ingress-overview
		return "which Azure keeps for its health checks"
	case 53: // ours: replicas use the resolver at this port of their gateway, where exposed ports are too
		return "which the environment's resolver has"
	}
	return ""
}

// validatePorts checks the TCP ports of an app by the rules of
// learn.microsoft.com/azure/container-apps/ingress-overview.
func validatePorts(in *Ingress) (faults []Fault) {
	const field = "configuration.ingress"
	bad := func(at, format string, args ...any) {
		faults = append(faults, Fault{codeValue, at, fmt.Sprintf(format, args...)})
	}
	if in.Transport != TransportTCP && in.ExposedPort != 0 {
		bad(field+".exposedPort", "want 0 or transport tcp, got %d: HTTP apps share the ports of the ingress", in.ExposedPort)
	}
	if n := len(in.Additional); n > maxAdditional {
		bad(field+".additionalPortMappings", "want at most %d ports, got %d", maxAdditional, n)
	}
	if in.TargetPort == 0 && len(in.Additional) > 0 {
		bad(field+".targetPort", "want 1 to 65535 beside additionalPortMappings, got 0: the port is not found out when an app has several")
	}
	targets := map[int]string{in.TargetPort: field + ".targetPort"}
	for i, m := range in.Additional {
		at := fmt.Sprintf("%s.additionalPortMappings[%d]", field, i)
		if f := port(at+".targetPort", m.TargetPort); f != nil {
			faults = append(faults, *f)
			continue
		}
		if first, taken := targets[m.TargetPort]; taken {
			bad(at+".targetPort", "want a port of its own, got %d, which is %s too", m.TargetPort, first)
		}
		targets[m.TargetPort] = at + ".targetPort"
		if m.External && !in.External {
			bad(at+".external", "want false in an app that is internal itself, got true")
		}
	}
	exposed := map[int]string{}
	for _, p := range in.ExposedPorts() {
		if p.Port < 1 || p.Port > 65535 {
			if strings.HasSuffix(p.Field, ".exposedPort") { // otherwise it was reported as the target port
				bad(p.Field, "want 1 to 65535, got %d", p.Port)
			}
			continue
		}
		if why := closedPort(p.Port); why != "" {
			hint := ""
			if strings.HasSuffix(p.Field, ".targetPort") {
				hint = "; set exposedPort beside it"
			}
			bad(p.Field, "want another port to be exposed than %d, %s%s", p.Port, why, hint)
		}
		if first, taken := exposed[p.Port]; taken {
			bad(p.Field, "want a port of its own to be exposed, got %d, which %s has", p.Port, first)
		}
		exposed[p.Port] = p.Field
	}
	return faults
}

// validateTCP refuses settings for HTTP requests in an app that gets none.
func validateTCP(a App, bad func(at, format string, args ...any)) {
	in := a.Configuration.Ingress
	if in.TargetPort == 0 && len(in.Additional) == 0 {
		bad(".targetPort", "want 1 to 65535 with transport tcp, got 0: the port is found out for HTTP apps only")
	}
	if in.TargetScheme == SchemeHTTPS {
		bad(".targetPortHttpScheme", "want http with transport tcp, got https: TLS is the app's own")
	}
	if in.AllowInsecure {
		bad(".allowInsecure", "want false with transport tcp, got true: nothing is redirected")
	}
	if n := len(in.Domains); n > 0 {
		bad(".customDomains", "want none with transport tcp, got %d: a connection does not say which host name it is for", n)
	}
	if in.CORS != nil {
		bad(".corsPolicy", "want none with transport tcp, got one: it is about HTTP requests")
	}
	if in.Sticky {
		bad(".stickySessions.affinity", "want none with transport tcp, got sticky: it needs a cookie")
	}
	if in.ClientCertificates != "" {
		bad(".clientCertificateMode", "want ignore with transport tcp, got %s: TLS is the app's own", in.ClientCertificates)
	}
	for i, t := range in.Traffic {
		// A label is a host name, and a TCP connection does not say which host name it is for.
		if t.Label != "" {
			bad(fmt.Sprintf(".traffic[%d].label", i), "want no label with transport tcp, got %q: a connection does not say which host name it is for", t.Label)
		}
	}
}

func validateCORS(c *CORS, bad func(at, format string, args ...any)) {
	if len(c.Origins) == 0 {
		bad(".corsPolicy.allowedOrigins", "want at least one origin, or *, got none")
	}
	for i, o := range c.Origins {
		scheme, rest, ok := strings.Cut(o, "://")
		rest = strings.TrimPrefix(rest, "*.")
		if o != "*" && (!ok || scheme != "http" && scheme != "https" || rest == "" || strings.ContainsAny(rest, "/*?# ,") || strings.ToLower(o) != o) {
			bad(fmt.Sprintf(".corsPolicy.allowedOrigins[%d]", i), "want an origin as browsers send it, such as https://chat.example, or https://*.chat.example, or *, got %q", o)
		}
	}
	for _, list := range []struct {
		name  string
		words []string
	}{{"allowedMethods", c.Methods}, {"allowedHeaders", c.Headers}, {"exposeHeaders", c.ExposedHeaders}} {
		for i, word := range list.words {
			if !headerName.MatchString(word) {
				bad(fmt.Sprintf(".corsPolicy.%s[%d]", list.name, i), "want a name of letters, digits and '-', or *, got %q", word)
			}
		}
	}
	if c.MaxAge != nil && *c.MaxAge < 0 {
		bad(".corsPolicy.maxAge", "want a number of seconds, got %d", *c.MaxAge)
	}
}
