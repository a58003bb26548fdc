package remote

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

const (
	dialLimit   = 10 * time.Second
	headerLimit = 30 * time.Second
	// idleLimit ends the transfer of a blob whose bytes have stopped arriving. It can be continued at the same place.
	idleLimit = 30 * time.Second
	// maxManifest is the size that the OCI distribution specification 1.1, "Pushing Manifests", requires at least.
	maxManifest = 4 << 20
	// maxRedirects is more than any registry needs, which is one to its blob storage.
	maxRedirects = 5
)

// accepted are the media types of manifests in requests.
var accepted = strings.Join([]string{
	"application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json",
	"application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.docker.distribution.manifest.v2+json",
}, ", ")

// Config configures how registries are reached.
type Config struct {
	// Insecure are the registries, HOST or HOST:PORT, that are reached over plain http. Registries on this machine are
	// too, if they do not speak https.
	Insecure []string
	// Mirrors of a registry are tried before it, in order and without credentials: HOST[:PORT][/PREFIX].
	Mirrors map[string][]string
	// Roots are trusted in addition to the system's. It can be nil.
	Roots *x509.CertPool
	// Proxy selects the proxy of a request. nil means none.
	Proxy func(*http.Request) (*url.URL, error)
	Log   *slog.Logger
}

// Client reads from registries. It is safe for concurrent use.
type Client struct {
	cfg  Config
	http *http.Client

	mu      sync.Mutex
	schemes map[string]string    // of hosts that speak plain http
	proofs  map[string]authority // by endpoint, repository and login
}

// New returns a client. It makes no connection yet.
func New(cfg Config) *Client {
	c := &Client{cfg: cfg, schemes: map[string]string{}, proofs: map[string]authority{}}
	c.http = &http.Client{
		CheckRedirect: redirect,
		Transport: &http.Transport{
			Proxy:                 cfg.Proxy,
			DialContext:           (&net.Dialer{Timeout: dialLimit}).DialContext,
			TLSClientConfig:       &tls.Config{RootCAs: cfg.Roots, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:   dialLimit,
			ResponseHeaderTimeout: headerLimit,
			IdleConnTimeout:       headerLimit,
			MaxIdleConnsPerHost:   4,
			DisableCompression:    true, // the digest is of the bytes as they are sent
			ForceAttemptHTTP2:     true,
		},
	}
	return c
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// redirect follows a registry's redirect to its blob storage. Go's own rule would send Authorization to subdomains.
func redirect(req *http.Request, via []*http.Request) error {
	first := via[0].URL
	switch {
	case len(via) > maxRedirects:
		return refuse("%s redirects more than %d times", first.Host, maxRedirects)
	case req.URL.User != nil, req.URL.Scheme != "https" && req.URL.Scheme != "http", req.URL.Scheme == "http" && first.Scheme == "https":
		return refuse("%s redirects to %s://%s, which is not followed", first.Host, printable(req.URL.Scheme), printable(req.URL.Host))
	case req.URL.Scheme != first.Scheme || req.URL.Host != first.Host:
		req.Header.Del("Authorization")
	}
	req.Header.Del("Referer")
	return nil
}

// endpoint is where a repository can be requested.
type endpoint struct {
	scheme, host string // as in a URL
	repository   string
	mirror       bool
}

// endpoints returns a registry's mirrors, then the registry.
func (c *Client) endpoints(host, repository string) []endpoint {
	host = Host(host)
	repository = Repository(host, repository)
	var list []endpoint
	for _, mirror := range c.cfg.Mirrors[host] {
		at, prefix, _ := strings.Cut(mirror, "/")
		path := repository
		if prefix != "" {
			path = prefix + "/" + repository
		}
		list = append(list, endpoint{scheme: c.scheme(at), host: at, repository: path, mirror: true})
	}
	api := host
	if host == dockerHub {
		api = dockerHubAPI
	}
	return append(list, endpoint{scheme: c.scheme(api), host: api, repository: repository})
}

func (c *Client) scheme(host string) string {
	if slices.Contains(c.cfg.Insecure, host) {
		return "http"
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.schemes[host]; s != "" {
		return s
	}
	return "https"
}

// Manifest is a manifest or index as a registry sent it.
type Manifest struct {
	Raw       []byte
	MediaType string
	Digest    digest.Digest // of Raw
}

// Manifest fetches the manifest of a tag or digest. For a digest it verifies that the manifest has that digest.
func (c *Client) Manifest(ctx context.Context, host, repository, tagOrDigest string, login Login) (Manifest, error) {
	var found Manifest
	err := c.each(ctx, host, repository, login, func(ctx context.Context, at endpoint, login Login) error {
		resp, err := c.get(ctx, at, "manifests/"+tagOrDigest, http.Header{"Accept": {accepted}}, login)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return answerError(at.host, resp)
		}
		raw, err := io.ReadAll(io.LimitReader(resp.Body, maxManifest+1))
		if err != nil {
			return fmt.Errorf("manifest from %s: %w", at.host, cause(err))
		}
		if len(raw) > maxManifest {
			return refuse("%s: want a manifest of at most %d bytes, got more", at.host, maxManifest)
		}
		mediaType, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
		found = Manifest{Raw: raw, MediaType: strings.TrimSpace(mediaType), Digest: digest.FromBytes(raw)}
		if strings.Contains(tagOrDigest, ":") && found.Digest.String() != tagOrDigest {
			return refuse("%s: want manifest %s, got one with digest %s", at.host, tagOrDigest, found.Digest)
		}
		return nil
	})
	return found, err
}

// Blob is a blob that is being fetched.
type Blob struct {
	io.ReadCloser
	// Offset is where in the blob the first byte is that will be read: the requested offset, or 0 from a registry
	// without ranges.
	Offset int64
}

// Blob opens a blob at an offset. The caller must check the content against the digest, and close the Blob.
func (c *Client) Blob(ctx context.Context, host, repository string, d digest.Digest, offset int64, login Login) (Blob, error) {
	var blob Blob
	err := c.each(ctx, host, repository, login, func(ctx context.Context, at endpoint, login Login) error {
		header := http.Header{}
		if offset > 0 {
			header.Set("Range", "bytes="+strconv.FormatInt(offset, 10)+"-")
		}
		reading, cancel := context.WithCancelCause(ctx)
		resp, err := c.get(reading, at, "blobs/"+d.String(), header, login)
		if err != nil {
			cancel(nil)
			return err
		}
		body := newPatient(reading, resp.Body, cancel)
		switch {
		case resp.StatusCode == http.StatusOK:
			blob = Blob{body, 0}
			return nil
		case resp.StatusCode == http.StatusPartialContent && offset > 0:
			if begins(resp.Header.Get("Content-Range")) == offset {
				blob = Blob{body, offset}
				return nil
			}
			err = refuse("%s: want bytes from %d on, got Content-Range %q", at.host, offset, printable(resp.Header.Get("Content-Range")))
		default:
			err = answerError(at.host, resp)
		}
		return errors.Join(err, body.Close())
	})
	return blob, err
}

// begins returns the first byte position of a Content-Range, or -1 if it has none.
func begins(contentRange string) int64 {
	first, _, _ := strings.Cut(strings.TrimPrefix(contentRange, "bytes "), "-")
	n, err := strconv.ParseInt(first, 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// each asks one endpoint after the other until one has the answer. If none has, the registry's own error is returned.
func (c *Client) each(ctx context.Context, host, repository string, login Login, ask func(context.Context, endpoint, Login) error) error {
	var err error
	for _, at := range c.endpoints(host, repository) {
		as := login
		if at.mirror {
			as = Login{}
		}
		if err = ask(ctx, at, as); err == nil || ctx.Err() != nil {
			return err
		}
		if at.mirror {
			c.cfg.Log.Debug("a mirror does not have it; asking on", "mirror", at.host, "repository", at.repository, "err", err)
		}
	}
	return err
}

// get sends a request, and repeats it with the credentials that the registry asks for.
func (c *Client) get(ctx context.Context, at endpoint, path string, header http.Header, login Login) (*http.Response, error) {
	key := func() string {
		return strings.Join([]string{at.scheme, at.host, at.repository, login.Key()}, "\x00")
	}
	c.mu.Lock()
	proof := c.proofs[key()]
	c.mu.Unlock()
	if time.Now().After(proof.until) {
		proof = authority{}
	}
	for again := false; ; again = true {
		resp, err := c.send(ctx, &at, path, header, proof.header)
		if err != nil {
			return nil, err
		}
		// A challenge from the target of a redirect does not come from the registry.
		if resp.StatusCode != http.StatusUnauthorized || again || resp.Request.URL.Host != at.host {
			return resp, nil
		}
		refused := answerError(at.host, resp)
		resp.Body.Close()
		if proof, err = c.prove(ctx, at, challenges(resp.Header), at.repository, login); err != nil {
			return nil, err
		}
		if proof.header == "" {
			return nil, refused
		}
		c.mu.Lock()
		if len(c.proofs) > 1000 {
			clear(c.proofs)
		}
		c.proofs[key()] = proof
		c.mu.Unlock()
	}
}

// send sends one request. If a registry on this machine does not speak https, plain http is used from then on.
func (c *Client) send(ctx context.Context, at *endpoint, path string, header http.Header, authorization string) (*http.Response, error) {
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.scheme+"://"+at.host+"/v2/"+at.repository+"/"+path, nil)
		if err != nil {
			return nil, refuse("%s: %v", printable(at.host), err)
		}
		req.Header = header.Clone()
		req.Header.Set("User-Agent", "penstock")
		if authorization != "" {
			req.Header.Set("Authorization", authorization)
		}
		resp, err := c.http.Do(req)
		if err == nil {
			return resp, nil
		}
		if plain := errors.Is(err, http.ErrSchemeMismatch); !plain || at.scheme == "http" || authorization != "" || !isLoopback(at.host) {
			if plain {
				return nil, refuse("%s speaks plain http, which is taken of registries on this machine only, and of those that --registry-insecure names", at.host)
			}
			return nil, fmt.Errorf("reach %s: %w", at.host, cause(err))
		}
		at.scheme = "http"
		c.mu.Lock()
		c.schemes[at.host] = "http"
		c.mu.Unlock()
	}
}

// cause returns a network error without the URL, which may contain a signature.
func cause(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	return &broken{err}
}

// patient is a body that can take long but must not stall.
type patient struct {
	why    func() error // why the request was ended, or nil
	body   io.ReadCloser
	cancel context.CancelCauseFunc
	timer  *time.Timer
}

var errSilent = fmt.Errorf("no data came for %v", idleLimit)

func newPatient(ctx context.Context, body io.ReadCloser, cancel context.CancelCauseFunc) *patient {
	return &patient{func() error { return context.Cause(ctx) }, body, cancel, time.AfterFunc(idleLimit, func() { cancel(errSilent) })}
}

func (p *patient) Read(b []byte) (int, error) {
	p.timer.Reset(idleLimit)
	n, err := p.body.Read(b)
	p.timer.Stop() // the reader can take its time with what it has received
	if err != nil && err != io.EOF {
		if why := p.why(); why != nil {
			err = why
		}
		err = &broken{err}
	}
	return n, err
}

func (p *patient) Close() error {
	p.timer.Stop()
	p.cancel(nil)
	return p.body.Close()
}
