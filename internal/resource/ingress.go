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
)

// SchemeHTTPS says that replicas speak TLS.
const SchemeHTTPS = "https"

// Ingress opens an app to HTTP requests.
type Ingress struct {
	External bool
	// TargetPort is 0 when it is to be found out what the app listens on.
	TargetPort int
	Transport  Transport
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
