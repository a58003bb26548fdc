package arm

import (
	"context"
	"crypto/rand"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/google/uuid"

	"penstock/internal/arm/app"
	"penstock/internal/logs"
	"penstock/internal/resource"
	"penstock/internal/runtimes"
	"penstock/internal/store"
)

// Images tells which image a reference means now, to who has these keys. The error of one that is not there wraps
// resource.ErrNotFound.
type Images interface {
	Digest(ctx context.Context, keys resource.Keyring, ref string) (string, error)
}

// Replicas lists what runs.
type Replicas interface {
	Replicas(ctx context.Context) ([]resource.Replica, error)
}

// Execer is what Replicas may be that runs commands in containers.
type Execer interface {
	Exec(ctx context.Context, replica, container string, e runtimes.Exec) (code int, err error)
}

// Console holds what containers print.
type Console interface {
	Read(ctx context.Context, q logs.Query) iter.Seq2[logs.Line, error]
}

// System holds what the platform does.
type System interface {
	Append(e resource.Event)
	Read(ctx context.Context, q logs.EventQuery) iter.Seq2[resource.Event, error]
}

// Resolver asks the name servers.
type Resolver interface {
	LookupCNAME(ctx context.Context, host string) (string, error)
	LookupHost(ctx context.Context, host string) ([]string, error)
	LookupTXT(ctx context.Context, name string) ([]string, error)
}

// Sealer makes secret values unreadable for the store, and readable again.
type Sealer interface {
	Seal(purpose, value string) []byte
	Open(purpose string, sealed []byte) (string, error)
}

// Config is what the API works with. All fields are needed.
type Config struct {
	Store   *store.Store
	Runtime Replicas
	Images  Images
	Console Console
	System  System
	// Requests is the folder of access records.
	Requests string
	Secrets  Sealer
	// Reconcile asks for a look at a resource that was written. It must not block.
	Reconcile func(resource.ID)
	Resolver  Resolver
	// OwnPorts are those that the server itself listens on, with the settings that say so.
	OwnPorts map[int]string
	// Cores is how many vCPUs the machine has.
	Cores int
	// Token is what clients prove themselves by.
	Token string
	Log   *slog.Logger
}

// api answers requests.
type api struct {
	Config
	// streamKey signs the tokens for streams; they end with the process.
	streamKey [32]byte
	types     []string // of resources that there are addresses of
	catalogue []providerOperation
	lastPrune atomic.Int64 // Unix seconds
}

// New returns the handler of the whole API.
func New(cfg Config) http.Handler {
	a := &api{Config: cfg}
	_, _ = rand.Read(a.streamKey[:]) // never fails
	rs := a.routes()
	a.types, a.catalogue = types(rs), catalogue(rs)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &call{api: a, w: w, r: r}
		if err := c.serve(rs); err != nil {
			c.fail(err)
		}
	})
}

// call is one request on its way.
type call struct {
	*api
	w    http.ResponseWriter
	r    *http.Request
	vars map[string]string
	// domains are those of the environments that the request had to do with.
	domains map[resource.ID]string
}

func (c *call) serve(rs []route) error {
	h := c.w.Header()
	h.Set("x-ms-request-id", uuid.NewString())
	correlation := c.r.Header.Get("x-ms-correlation-request-id")
	if uuid.Validate(correlation) != nil {
		correlation = uuid.NewString()
	}
	h.Set("x-ms-correlation-request-id", correlation)
	if id := c.r.Header.Get("x-ms-client-request-id"); uuid.Validate(id) == nil && strings.EqualFold(c.r.Header.Get("x-ms-return-client-request-id"), "true") {
		h.Set("x-ms-client-request-id", id)
	}
	h.Set("Cache-Control", "no-cache")

	found, vars, err := match(rs, c.r)
	if !c.authorized(found, vars) {
		return c.unauthorized()
	}
	if err != nil {
		return err
	}
	c.vars = vars
	if s, ok := vars["subscription"]; ok && !subscriptionForm.MatchString(s) {
		return refuse(http.StatusBadRequest, "InvalidSubscriptionId", "The provided subscription identifier '%s' is malformed or invalid; want letters, digits and '-'.", s)
	}
	query := c.r.URL.Query()
	if !found.stream {
		if err := checkVersion(query); err != nil {
			return err
		}
	}
	for name := range query {
		if strings.HasPrefix(name, "$") && !slices.ContainsFunc(found.query, func(q string) bool { return strings.EqualFold(q, name) }) {
			return refuse(http.StatusBadRequest, resource.CodeNotBuilt, "The query parameter '%s' is not built here; leave it out.", name)
		}
	}
	if found.provider {
		h.Set("api-supported-versions", strings.Join(apiVersions, ", "))
	}
	return found.handle(c)
}

// apiVersions are those that Azure documents. Requests in any other are answered in the same form.
var apiVersions = []string{
	"2022-03-01", "2022-10-01", "2023-05-01", "2024-03-01", "2025-01-01", "2025-07-01", "2026-01-01", "2026-07-01",
}

// oldestVersion is that of the first services of Azure Resource Manager that clients still name.
const oldestVersion = "2015-08-01"

// subscriptionForm takes Azure's GUIDs, and names that people can remember.
var subscriptionForm = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)

var versionForm = regexp.MustCompile(`^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])(-[a-z]+(\.\d+)?)?$`)

func checkVersion(query url.Values) error {
	version := ""
	for name := range query {
		if strings.EqualFold(name, "api-version") {
			version = strings.ToLower(query.Get(name))
		}
	}
	switch {
	case version == "":
		return refuse(http.StatusBadRequest, "MissingApiVersionParameter",
			"The api-version query parameter (?api-version=) is required for all requests; want a version from %s on, as in api-version=2025-01-01.", oldestVersion)
	case !versionForm.MatchString(version) || version < oldestVersion:
		return refuse(http.StatusBadRequest, "InvalidApiVersionParameter",
			"The api-version '%s' is invalid; want a date from %s on, as in api-version=2025-01-01.", version, oldestVersion)
	}
	return nil
}

// site is the server as this client sees it.
func (c *call) site() app.Site {
	s := app.Site{Endpoint: c.endpoint()}
	if local, ok := c.r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		s.Address, _, _ = net.SplitHostPort(local.String())
	}
	return s
}

// endpoint is where the client reached the server, without a slash at the end: all addresses in answers begin with it.
func (c *call) endpoint() string {
	scheme := "https"
	if c.r.TLS == nil {
		scheme = "http"
	}
	return scheme + "://" + c.r.Host
}
