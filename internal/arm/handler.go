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
	"time"

	"github.com/google/uuid"

	"penstock/internal/arm/app"
	"penstock/internal/decisions"
	"penstock/internal/logs"
	"penstock/internal/resource"
	"penstock/internal/runtimes"
	"penstock/internal/store"
)

// Images returns the digest that an image reference has now, using the logins in keys. If the image does not exist its
// error wraps resource.ErrNotFound.
type Images interface {
	Digest(ctx context.Context, keys resource.Keyring, ref string) (string, error)
}

// Replicas lists all replicas.
type Replicas interface {
	Replicas(ctx context.Context) ([]resource.Replica, error)
}

// Execer is implemented by a Replicas that can run commands in containers.
type Execer interface {
	Exec(ctx context.Context, replica, container string, e runtimes.Exec) (code int, err error)
}

// Console reads what containers print.
type Console interface {
	Read(ctx context.Context, q logs.Query) iter.Seq2[logs.Line, error]
}

// System is the system log: the events of the platform.
type System interface {
	// Begin is called when an app or job is made. One of that name may have been deleted a moment ago, with its events.
	Begin(id resource.ID)
	Append(e resource.Event)
	Read(ctx context.Context, q logs.EventQuery) iter.Seq2[resource.Event, error]
}

// Decisions has past scaling decisions.
type Decisions interface {
	Read(ctx context.Context, q decisions.Query) ([]decisions.Decision, error)
}

// Resolver makes DNS queries.
type Resolver interface {
	LookupCNAME(ctx context.Context, host string) (string, error)
	LookupHost(ctx context.Context, host string) ([]string, error)
	LookupTXT(ctx context.Context, name string) ([]string, error)
}

// Sealer encrypts secret values for the store, and decrypts them.
type Sealer interface {
	Seal(purpose, value string) []byte
	Open(purpose string, sealed []byte) (string, error)
}

// Config has what the API works with. All fields are required.
type Config struct {
	Store   *store.Store
	Runtime Replicas
	Images  Images
	Console Console
	System  System
	// Decisions are about apps of the store. Those about deleted apps are not returned.
	Decisions Decisions
	// Requests is the folder of access records.
	Requests string
	Secrets  Sealer
	// Reconcile asks for the reconciliation of a resource that was written. It must not block.
	Reconcile func(resource.ID)
	Resolver  Resolver
	// OwnPorts are the ports of the server itself, with the flags that set them. Apps cannot use them.
	OwnPorts map[int]string
	// Cores is how many vCPUs the machine has.
	Cores int
	// Token is the token with which clients authenticate.
	Token string
	// Quiet is how long a stream or a terminal is silent before something is sent that keeps its connection open. 30 s.
	Quiet time.Duration
	Log   *slog.Logger
}

// api serves the whole API.
type api struct {
	Config
	// streamKey signs the tokens of streams. It changes, and the tokens become invalid, when the process starts anew.
	streamKey [32]byte
	kinds     []resources
	routes    []route
	providers []provider
	lastPrune atomic.Int64 // Unix seconds
}

// New returns the handler of the whole API.
func New(cfg Config) http.Handler { return newAPI(cfg, kinds()) }

func newAPI(cfg Config, kinds []resources) *api {
	a := &api{Config: cfg, kinds: kinds, routes: newRoutes(kinds)}
	_, _ = rand.Read(a.streamKey[:]) // never fails
	a.providers = newProviders(a.routes)
	return a
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{api: a, w: w, r: r}
	if err := c.serve(); err != nil {
		c.fail(err)
	}
}

// call is a request that is being served.
type call struct {
	*api
	w    http.ResponseWriter
	r    *http.Request
	vars map[string]string
	// namespace is that of the provider whose route it is; see route.
	namespace string
	// written is the Meta of the resource in the answer. It is nil for an answer that is no resource that users write.
	written *resource.Meta
	// domains has the domains of environments that were looked up for this request.
	domains map[resource.ID]string
}

func (c *call) serve() error {
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

	found, vars, err := c.match(c.r)
	if !c.authorized(found, vars) {
		return c.unauthorized()
	}
	if err != nil {
		return err
	}
	c.vars, c.namespace = vars, found.namespace
	if s, ok := vars["subscription"]; ok && !subscriptionForm.MatchString(s) {
		return refuse(http.StatusBadRequest, "InvalidSubscriptionId", "The provided subscription identifier '%s' is malformed or invalid; want letters, digits and '-'.", s)
	}
	query := c.r.URL.Query()
	if !found.stream && !found.open {
		if err := checkVersion(query); err != nil {
			return err
		}
	}
	for name := range query {
		if strings.HasPrefix(name, "$") && !slices.ContainsFunc(found.query, func(q string) bool { return strings.EqualFold(q, name) }) {
			return refuse(http.StatusBadRequest, resource.CodeNotBuilt, "The query parameter '%s' is not built here; leave it out.", name)
		}
	}
	if versions := apiVersions[found.namespace]; len(versions) > 0 && !found.stream {
		h.Set("api-supported-versions", strings.Join(versions, ", "))
	}
	return found.handle(c)
}

// oldestVersion is the oldest api-version that clients still use, for the first services of Azure Resource Manager.
const oldestVersion = "2015-08-01"

// subscriptionForm matches Azure's GUIDs, and names that are easier to remember.
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

// site returns the addresses of the server as this client sees them.
func (c *call) site() app.Site {
	s := app.Site{Endpoint: c.endpoint()}
	if local, ok := c.r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		s.Address, _, _ = net.SplitHostPort(local.String())
	}
	return s
}

// endpoint returns the URL at which the client reached the server, without a slash at the end. All addresses in answers
// begin with it.
func (c *call) endpoint() string {
	scheme := "https"
	if c.r.TLS == nil {
		scheme = "http"
	}
	return scheme + "://" + c.r.Host
}
