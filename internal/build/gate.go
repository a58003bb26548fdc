package build

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// gate lets a builder on this machine use the server's registry during a build, without the server's token and certificate.
// It listens on loopback, which other users of the machine can reach, so it requires a secret in the path to read images, and
// another as a password to write, which is possible only to one repository. The builder gets both in files of its own.
//
//	builder --http--> 127.0.0.1:PORT/v2/SECRET/NAME/... --token, https--> server/v2/NAME/...
//	builder --http, password--> 127.0.0.1:PORT/v2/NAME/... ------------------^
type gate struct {
	host     string // 127.0.0.1:PORT
	secret   string // to read
	password string // to write
	moved    atomic.Int64

	server *http.Server
	served chan error

	mu     sync.Mutex
	pushed map[string]bool // digests of blobs that the builder sent
}

// headLimit is how long a client may take to send the head of a request. Bodies have no limit.
const headLimit = 10 * time.Second

func openGate(to Registry, server *url.URL, repository, secret string) (*gate, error) {
	ln, err := listenAgain(server.Host)
	if err != nil {
		return nil, err
	}
	g := &gate{host: ln.Addr().String(), secret: secret, password: rand.Text(), served: make(chan error, 1), pushed: make(map[string]bool)}
	proxy := &httputil.ReverseProxy{
		Transport: &wire{next: to.transport(), scheme: server.Scheme, moved: &g.moved},
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: server.Scheme, Host: server.Host})
			r.Out.Host = server.Host
			r.Out.Header.Del("Authorization")
		},
		ModifyResponse: g.answered,
		ErrorLog:       slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), // the builder reports the errors that it gets
	}
	reads := http.StripPrefix("/v2/"+g.secret, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead || !isClean(r.URL) {
			http.Error(w, "this path is read-only", http.StatusForbidden)
			return
		}
		r.URL.Path = "/v2" + r.URL.Path
		proxy.ServeHTTP(w, r)
	}))
	mux := http.NewServeMux()
	mux.Handle("/v2/"+g.secret+"/", reads)
	mux.HandleFunc("/v2/", func(w http.ResponseWriter, r *http.Request) {
		_, password, _ := r.BasicAuth()
		switch {
		case subtle.ConstantTimeCompare([]byte(password), []byte(g.password)) != 1:
			w.Header().Set("WWW-Authenticate", `Basic realm="penstock build"`)
			http.Error(w, "the secret of this build is required", http.StatusUnauthorized)
		case r.URL.Path == "/v2/": // the first request of every client
		case !isClean(r.URL) || !strings.HasPrefix(r.URL.Path, "/v2/"+repository+"/"):
			http.Error(w, "this build can write only to "+repository, http.StatusForbidden)
		default:
			if q := r.URL.Query(); q.Has("from") { // a layer of an image that was read is mounted
				q.Set("from", strings.TrimPrefix(q.Get("from"), g.secret+"/"))
				r.URL.RawQuery = q.Encode()
			}
			proxy.ServeHTTP(w, r)
		}
	})
	g.server = &http.Server{Handler: mux, ReadHeaderTimeout: headLimit}
	go func() { g.served <- g.server.Serve(ln) }()
	return g, nil
}

// listenAgain uses the same port for the same server each time, if it is free. Builders remember by address which layers a
// registry has, and then neither pack nor send them again. The ports are above those that Linux gives to outgoing
// connections (ip_local_port_range, 32768 to 60999).
func listenAgain(server string) (net.Listener, error) {
	const first, count = 61000, 4500
	h := fnv.New32a()
	_, _ = h.Write([]byte(server)) // writing to a hash never fails
	if ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first+h.Sum32()%count)); err == nil {
		return ln, nil
	}
	return net.Listen("tcp", "127.0.0.1:0")
}

// isClean reports whether a path has no encoded parts and no dot segments.
func isClean(u *url.URL) bool {
	return u.RawPath == "" && path.Clean(u.Path) == strings.TrimSuffix(u.Path, "/")
}

// answered remembers which blobs the builder sent, and rewrites redirects so that clients come back to the gate.
func (g *gate) answered(resp *http.Response) error {
	asked := resp.Request.URL
	if resp.StatusCode == http.StatusCreated && asked.Query().Get("mount") == "" && strings.Contains(asked.Path, "/blobs/") {
		g.mu.Lock()
		g.pushed[resp.Header.Get("Docker-Content-Digest")] = true
		g.mu.Unlock()
	}
	at := resp.Header.Get("Location")
	if at == "" {
		return nil
	}
	u, err := url.Parse(at)
	if err != nil || u.Host != "" && u.Host != asked.Host || !strings.HasPrefix(u.Path, "/v2/") {
		return errors.New("the registry redirects to another server")
	}
	u.Scheme, u.Host = "http", g.host
	resp.Header.Set("Location", u.String())
	return nil
}

func (g *gate) sent(digest string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.pushed[digest]
}

// close stops the server. The builder has ended.
func (g *gate) close() error {
	err := g.server.Close()
	if served := <-g.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
