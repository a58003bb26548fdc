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

// policy is link.Policy made ready. A route without one has nil, which is all that its requests have to look at.
type policy struct {
	allow, deny []netip.Prefix
	cors        *cors
	sticky      bool
	certificate tls.ClientAuthType
}

// cors is resource.CORS with its lists as they go into headers.
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

// admits says whether an address may ask. One that is not known may not where anything is said of addresses.
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

// permits says whether pages of that origin may use the app.
func (c *cors) permits(origin string) bool { return c.all || slices.Contains(c.origins, origin) }

// answerBeforeRoute answers what the app's policy does not let through, or answers for the app. It says whether it did.
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
		return false // a browser keeps the page from it
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

// allow tells the browser that the page may have the response. What the app says of that is replaced, as Envoy does.
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

// mark adds to a response what the app's policy says.
func (x *exchange) mark(h http.Header) {
	if x.cors != nil {
		x.allow(h)
	}
	if x.badge != "" {
		x.stick(h)
	}
}

// certified says whether the client has shown the certificate that the app requires. Routes go by the Host header, and a
// connection may have been opened for another one, so that the handshake alone does not tell.
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

// certificate is the X-Forwarded-Client-Cert of a connection, in Envoy's form: what the app checks is up to it.
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

// affinity is the name of Azure's cookie.
const affinity = "acaAffinity"

// stickTo is what the client's cookie says of the replica that it had.
func stickTo(r *http.Request) string {
	c, err := r.Cookie(affinity)
	if err != nil {
		return ""
	}
	return c.Value
}

// badge is how the cookie calls a replica.
func badge(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:8])
}

// stick has the client come back to the replica that answers it.
func (x *exchange) stick(h http.Header) {
	attributes := `; Path=/; HttpOnly`
	if x.scheme == "https" {
		attributes += "; Secure; SameSite=None"
	}
	h.Add("Set-Cookie", affinity+`="`+x.badge+`"`+attributes)
}
