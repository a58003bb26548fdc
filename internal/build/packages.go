package build

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// packages is a proxy that keeps the Debian packages that apt downloads, by address: an archive never changes the file of a
// version. apt checks each against the archive's signature, wherever it came from. Requests need a password, because other
// users of the machine reach loopback too. Only plain http passes through it.
//
//	apt --http, password--> 127.0.0.1:PORT --> debs/SHA256(address), or the archive
type packages struct {
	cache    *cache
	host     string
	password string
	// got is called with each part of a package that apt gets.
	got func(n int64, whole, cached bool)

	server *http.Server
	served chan error

	mu   sync.Mutex
	used []string // cached files that were served
}

func openPackages(store *cache, got func(n int64, whole, cached bool)) (*packages, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &packages{cache: store, host: ln.Addr().String(), password: rand.Text(), got: got, served: make(chan error, 1)}
	archive := http.DefaultTransport.(*http.Transport).Clone() // it uses the user's own proxy, if there is one
	archive.DisableCompression = true
	proxy := &httputil.ReverseProxy{
		Transport:      archive,
		Rewrite:        func(r *httputil.ProxyRequest) { r.Out.Header.Del("Proxy-Authorization") },
		ModifyResponse: p.keep,
		ErrorLog:       slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), // apt reports the errors that it gets
	}
	p.server = &http.Server{ReadHeaderTimeout: headLimit, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !p.allowed(r):
			w.Header().Set("Proxy-Authenticate", `Basic realm="penstock build"`)
			http.Error(w, "the secret of this build is required", http.StatusProxyAuthRequired)
		case r.URL.Scheme != "http" || r.URL.Host == "" || r.Method != http.MethodGet && r.Method != http.MethodHead:
			http.Error(w, "this proxy only reads over http", http.StatusForbidden)
		case !p.serve(w, r):
			proxy.ServeHTTP(w, r)
		}
	})}
	go func() {
		p.served <- p.server.Serve(ln)
		archive.CloseIdleConnections()
	}()
	return p, nil
}

// url is the value of http_proxy.
func (p *packages) url() string { return "http://build:" + p.password + "@" + p.host }

func (p *packages) allowed(r *http.Request) bool {
	var as http.Request
	as.Header = http.Header{"Authorization": r.Header["Proxy-Authorization"]}
	_, password, _ := as.BasicAuth()
	return subtle.ConstantTimeCompare([]byte(password), []byte(p.password)) == 1
}

// path returns where the package of a request is kept, or "" if it is none.
func (p *packages) path(r *http.Request) string {
	if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, ".deb") || r.URL.RawQuery != "" || r.Header.Get("Range") != "" {
		return ""
	}
	sum := sha256.Sum256([]byte(r.URL.String()))
	return filepath.Join(p.cache.dir, "debs", hex.EncodeToString(sum[:]))
}

// serve answers with a package that is kept.
func (p *packages) serve(w http.ResponseWriter, r *http.Request) bool {
	path := p.path(r)
	if path == "" {
		return false
	}
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return false
	}
	p.mu.Lock()
	p.used = append(p.used, path)
	p.mu.Unlock()
	now := time.Now()
	_ = os.Chtimes(path, now, now) // marks it as used, as in the cache's lookup
	w.Header().Set("Content-Type", "application/vnd.debian.binary-package")
	http.ServeContent(w, r, "", time.Time{}, f)
	p.got(info.Size(), true, true)
	return true
}

// keep stores a package while apt reads it.
func (p *packages) keep(resp *http.Response) error {
	path := p.path(resp.Request)
	if path == "" || resp.StatusCode != http.StatusOK || resp.ContentLength < 0 {
		return nil
	}
	body := &keptBody{ReadCloser: resp.Body, packages: p, path: path, left: resp.ContentLength}
	// A package that cannot be kept is only downloaded again.
	body.file, _ = os.CreateTemp(filepath.Dir(path), "partial-*")
	resp.Body = body
	return nil
}

// keptBody copies what is read to a file, which is kept if all of it was read.
type keptBody struct {
	io.ReadCloser
	packages *packages
	path     string
	file     *os.File
	left     int64
}

func (b *keptBody) Read(to []byte) (int, error) {
	n, err := b.ReadCloser.Read(to)
	b.left -= int64(n)
	if b.file != nil {
		if _, bad := b.file.Write(to[:n]); bad != nil {
			b.drop()
		}
	}
	b.packages.got(int64(n), b.left == 0 && n > 0, false)
	return n, err
}

func (b *keptBody) Close() error {
	if b.file != nil && b.left == 0 {
		if b.file.Close() != nil || os.Rename(b.file.Name(), b.path) != nil {
			_ = os.Remove(b.file.Name()) // clean removes what remains
		}
		b.file = nil
	}
	b.drop()
	return b.ReadCloser.Close()
}

func (b *keptBody) drop() {
	if b.file != nil {
		_ = b.file.Close()
		_ = os.Remove(b.file.Name()) // clean removes what remains
		b.file = nil
	}
}

// close stops the proxy. After a failure the kept packages that were served are removed, since one may be damaged.
func (p *packages) close(failed bool) error {
	err := p.server.Close()
	if served := <-p.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if failed {
		for _, path := range p.used {
			err = errors.Join(err, remove(path))
		}
	}
	return err
}
