package resource

import (
	"fmt"
	"net/netip"
	"strings"
)

// Transport is how the ingress speaks to a replica.
type Transport string

const (
	TransportAuto Transport = "Auto"
	TransportHTTP Transport = "Http"
	// TransportHTTP2 is HTTP/2 in the clear by prior knowledge.
	TransportHTTP2 Transport = "Http2"
	// TransportTCP is none of HTTP's: bytes are carried both ways.
	TransportTCP Transport = "Tcp"
)

// SchemeHTTPS says that replicas speak TLS.
const SchemeHTTPS = "https"

// Ingress opens an app to HTTP requests, or to TCP connections.
type Ingress struct {
	External bool
	// TargetPort is 0 when it is to be found out what the app listens on.
	TargetPort int
	// ExposedPort is where a TCP app's clients connect; 0: at TargetPort.
	ExposedPort int `json:",omitempty"`
	Transport   Transport
	// Additional are TCP ports beside TargetPort.
	Additional []PortMapping `json:",omitempty"`
	// TargetScheme is what replicas speak: "https", or "http", which "" is too.
	TargetScheme  string `json:",omitempty"`
	AllowInsecure bool
	Traffic       []Traffic `json:",omitempty"`
	// Domains are host names beside the one of the environment.
	Domains []CustomDomain `json:",omitempty"`
	Policy
}

// Serving is what the app's revisions are told of the ingress; nil is an app without one.
func (in *Ingress) Serving() Serving {
	if in == nil {
		return Serving{}
	}
	return Serving{TargetPort: in.TargetPort, DetectPort: in.TargetPort == 0, TLS: in.TargetScheme == SchemeHTTPS}
}

// PortMapping is one additional TCP port.
type PortMapping struct {
	External    bool
	TargetPort  int
	ExposedPort int // 0: TargetPort
}

// ExposedPort is a TCP port of an app that clients connect to.
type ExposedPort struct {
	Field    string // of the manifest that names the number
	External bool
	Port     int
	// TargetPort is the replicas'; 0 for the app's main one, which is its revisions'.
	TargetPort int
}

// ExposedPorts are all TCP ports of an app.
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

// Policy is what an app asks of requests, whichever of its revisions they are for.
type Policy struct {
	// IPRules all allow or all deny.
	IPRules []IPRule `json:",omitempty"`
	CORS    *CORS    `json:",omitempty"`
	// Sticky keeps a client on one replica by a cookie.
	Sticky bool `json:",omitempty"`
	// ClientCertificates says whether TLS clients are asked for one; "": not.
	ClientCertificates ClientCertificates `json:",omitempty"`
}

// IPRule lets addresses in or keeps them out.
type IPRule struct {
	Name        string
	Description string `json:",omitempty"`
	Range       string // IPv4, "192.0.2.0/24" or "192.0.2.1"
	Allow       bool
}

// Prefix is the rule's range.
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

// CORS is which pages of other origins may use an app from a browser.
type CORS struct {
	Origins        []string // "https://chat.example", or "*" for all
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
		bad(".targetPort", "want 1 to 65535, or 0 for the port that the app is found to listen on, got %d", in.TargetPort)
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

// maxAdditional is how many ports an app may have beside its main one
// (learn.microsoft.com/azure/container-apps/ingress-overview, "Additional TCP ports").
const maxAdditional = 5

// closedPort says why a port cannot be exposed; "" when it can.
func closedPort(number int) string {
	switch number {
	case 80, 443: // learn.microsoft.com/azure/container-apps/ingress-how-to, exposedPort
		return "which HTTP apps have"
	case 36985: // learn.microsoft.com/azure/container-apps/ingress-overview
		return "which Azure keeps for its health checks"
	case 53: // ours: replicas find the resolver there, at the address at which they find the port
		return "which the environment's resolver has"
	}
	return ""
}

// validatePorts checks the TCP ports of an app by themselves, as
// learn.microsoft.com/azure/container-apps/ingress-overview has it.
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
		bad(field+".targetPort", "want 1 to 65535 beside additionalPortMappings, got 0: which of several ports is meant is not found out")
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
			if strings.HasSuffix(p.Field, ".exposedPort") { // else it was told as the target port
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

// validateTCP refuses what is said of requests about an app that gets none.
func validateTCP(a App, bad func(at, format string, args ...any)) {
	in := a.Configuration.Ingress
	if in.TargetPort == 0 && len(in.Additional) == 0 {
		bad(".targetPort", "want 1 to 65535 with transport tcp, got 0: the port is found out of HTTP apps only")
	}
	if in.TargetScheme == SchemeHTTPS {
		bad(".targetPortHttpScheme", "want http with transport tcp, got https: TLS is the app's own")
	}
	if in.AllowInsecure {
		bad(".allowInsecure", "want false with transport tcp, got true: nothing is redirected")
	}
	if n := len(in.Domains); n > 0 {
		bad(".customDomains", "want none with transport tcp, got %d: a connection does not say which name it came by", n)
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
		// A label is a host name, which a connection does not carry.
		if t.Label != "" {
			bad(fmt.Sprintf(".traffic[%d].label", i), "want no label with transport tcp, got %q: a connection does not say which name it came by", t.Label)
		}
	}
}

func validateCORS(c *CORS, bad func(at, format string, args ...any)) {
	if len(c.Origins) == 0 {
		bad(".corsPolicy.allowedOrigins", "want at least one origin, or *, got none")
	}
	for i, o := range c.Origins {
		scheme, rest, ok := strings.Cut(o, "://")
		if o != "*" && (!ok || scheme != "http" && scheme != "https" || rest == "" || strings.ContainsAny(rest, "/*?# ,") || strings.ToLower(o) != o) {
			bad(fmt.Sprintf(".corsPolicy.allowedOrigins[%d]", i), "want an origin as browsers send it, such as https://chat.example, or *, got %q", o)
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
