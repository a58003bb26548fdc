package ingress

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/pem"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"penstock/internal/link"
	"penstock/internal/resource"
)

// policy is a link.Policy in a form that is quick to apply. It is nil for a route without one.
type policy struct {
	allow, deny []netip.Prefix
	cors        *cors
	sticky      bool
	certificate tls.ClientAuthType
}

// cors is a resource.CORS with its lists in the form of header values.
type cors struct {
	origins                           []string
	all, credentials                  bool
	methods, headers, exposed, maxAge string
}

func newPolicy(p *link.Policy) *policy {
	if p == nil {
		return nil
	}
	made := &policy{allow: p.Allow, deny: p.Deny, sticky: p.Sticky}
	switch p.ClientCertificates {
	case resource.ClientCertificatesAccept:
		made.certificate = tls.RequestClientCert
	case resource.ClientCertificatesRequire:
		made.certificate = tls.RequireAnyClientCert
	}
	if c := p.CORS; c != nil {
		made.cors = &cors{
			origins: c.Origins, all: slices.Contains(c.Origins, "*"), credentials: c.Credentials,
			methods: strings.Join(c.Methods, ","), headers: strings.Join(c.Headers, ","), exposed: strings.Join(c.ExposedHeaders, ","),
		}
		if c.MaxAge != nil {
			made.cors.maxAge = strconv.Itoa(*c.MaxAge)
		}
	}
	return made
}

// admits says whether the policy allows an address. An unknown address is denied if the policy has any address range.
func (p *policy) admits(a netip.Addr) bool {
	in := func(list []netip.Prefix) bool {
		return slices.ContainsFunc(list, func(n netip.Prefix) bool { return n.Contains(a) })
	}
	switch {
	case len(p.allow) > 0:
		return in(p.allow)
	case len(p.deny) > 0:
		return a.IsValid() && !in(p.deny)
	}
	return true
}

// permits says whether pages of an origin may use the app.
func (c *cors) permits(origin string) bool {
	return c.all || slices.ContainsFunc(c.origins, func(pattern string) bool { return originMatches(pattern, origin) })
}

// originMatches says whether an origin is the one of the pattern, or of a host below "https://*.chat.example". The domain
// itself is not below. Scheme and port have to be the same.
func originMatches(pattern, origin string) bool {
	scheme, domain, below := strings.Cut(pattern, "://*.")
	if !below {
		return pattern == origin
	}
	host, ok := strings.CutPrefix(origin, scheme+"://")
	name, under := strings.CutSuffix(host, "."+domain)
	return ok && under && name != "" && !strings.ContainsAny(name, "/:@")
}

// answerBeforeRoute answers requests that the app's policy denies, and CORS preflights. It says whether it did.
func (x *exchange) answerBeforeRoute(p *policy) bool {
	if !p.admits(x.client.addr) {
		x.answer(http.StatusForbidden, 0, textDenied)
		return true
	}
	if p.cors == nil {
		return false
	}
	origin := x.r.Header.Get("Origin")
	if origin == "" || !p.cors.permits(origin) {
		return false // the browser will not let the page read the response
	}
	x.cors, x.origin = p.cors, origin
	if x.r.Method != http.MethodOptions || x.r.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	x.preflight = true
	x.guardFor(takeAnswer)
	h := x.w.Header()
	clear(h)
	for _, field := range [...]struct{ name, value string }{
		{"Access-Control-Allow-Methods", p.cors.methods}, {"Access-Control-Allow-Headers", p.cors.headers}, {"Access-Control-Max-Age", p.cors.maxAge},
	} {
		if field.value != "" {
			h.Set(field.name, field.value)
		}
	}
	h.Set("Content-Length", "0")
	x.commit(http.StatusOK)
	return true
}

// allow tells the browser that the page may read the response. It replaces what the app says, as Envoy does.
func (x *exchange) allow(h http.Header) {
	h.Set("Access-Control-Allow-Origin", x.origin)
	if !x.cors.all || x.cors.credentials {
		h.Add("Vary", "Origin")
	}
	if x.cors.credentials {
		h.Set("Access-Control-Allow-Credentials", "true")
	}
	if x.cors.exposed != "" && !x.preflight {
		h.Set("Access-Control-Expose-Headers", x.cors.exposed)
	}
}

// mark adds the fields of the app's policy to a response.
func (x *exchange) mark(h http.Header) {
	if x.cors != nil {
		x.allow(h)
	}
	if x.affinity != "" {
		x.setAffinity(h)
	}
}

// certified says whether the client has sent the certificate that the app requires. Requests are routed by the Host header,
// which may differ from the host that the handshake was for, so the handshake alone does not ensure it.
func (x *exchange) certified(p *policy) bool {
	if p.certificate == tls.NoClientCert {
		return true
	}
	if x.r.TLS != nil && len(x.r.TLS.PeerCertificates) > 0 {
		x.certificate = x.client.certificate(x.r.TLS)
		return true
	}
	return p.certificate != tls.RequireAnyClientCert
}

// certificate returns the X-Forwarded-Client-Cert of a connection, in Envoy's form. The app decides what to check.
func (c *client) certificate(state *tls.ConnectionState) string {
	c.once.Do(func() {
		leaf := state.PeerCertificates[0]
		sum := sha256.Sum256(leaf.Raw)
		var chain strings.Builder
		for _, cert := range state.PeerCertificates {
			chain.WriteString(escapedPEM(cert.Raw))
		}
		c.shown = "Hash=" + hex.EncodeToString(sum[:]) + `;Cert="` + escapedPEM(leaf.Raw) + `";Chain="` + chain.String() + `";`
	})
	return c.shown
}

var pemEscapes = strings.NewReplacer("\n", "%0A", " ", "%20", "+", "%2B", "/", "%2F", "=", "%3D")

func escapedPEM(der []byte) string {
	return pemEscapes.Replace(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
}

// affinityCookie is the name of Azure's cookie.
const affinityCookie = "acaAffinity"

// affinityOf returns the key of the replica that served the client before, from its cookie; "" if there is none.
func affinityOf(r *http.Request) string {
	c, err := r.Cookie(affinityCookie)
	if err != nil {
		return ""
	}
	return c.Value
}

// affinityKey returns the value of the cookie for a replica.
func affinityKey(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:8])
}

// setAffinity makes the client come back to the replica that serves it now.
func (x *exchange) setAffinity(h http.Header) {
	attributes := `; Path=/; HttpOnly`
	if x.scheme == "https" {
		attributes += "; Secure; SameSite=None"
	}
	h.Add("Set-Cookie", affinityCookie+`="`+x.affinity+`"`+attributes)
}
