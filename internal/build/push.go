package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"
)

// pushes is the number of concurrent layer uploads: one can wait for the server while another is read.
const pushes = 2

// answerLimit is how long a registry may take to respond to the first request. Pushes have no limit.
const answerLimit = 15 * time.Second

// Registry is the registry to which an image is pushed.
type Registry struct {
	// URL has scheme, host and port, such as https://127.0.0.1:8444.
	URL string
	// Transport sends the requests and adds credentials such as a token. If it is nil, http.DefaultTransport is used.
	Transport http.RoundTripper
}

// tag returns the full name of an image in the registry, by go-containerregistry's rules.
func (r Registry) tag(image string) (name.Tag, *url.URL, error) {
	u, err := url.Parse(r.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return name.Tag{}, nil, fmt.Errorf("registry: want http://HOST:PORT or https://HOST:PORT, got %q", r.URL)
	}
	host := u.Host
	if u.Port() == "" { // go-containerregistry tells a host from a folder by the colon
		host += map[string]string{"http": ":80", "https": ":443"}[u.Scheme]
	}
	var opts []name.Option
	if u.Scheme == "http" {
		opts = append(opts, name.Insecure)
	}
	if image == "" || strings.Contains(image, "@") {
		return name.Tag{}, nil, fmt.Errorf("image name: want NAME or NAME:TAG, got %q", image)
	}
	tag, err := name.NewTag(host+"/"+image, opts...)
	if err != nil {
		return name.Tag{}, nil, fmt.Errorf("image name %q: want lower-case NAME or NAME:TAG: %w", image, err)
	}
	return tag, u, nil
}

func (r Registry) transport() http.RoundTripper {
	if r.Transport == nil {
		return http.DefaultTransport
	}
	return r.Transport
}

// answers checks that the registry can be reached and accepts us, before anything large is read.
func (r Registry) answers(ctx context.Context, u *url.URL) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.Scheme+"://"+u.Host+"/v2/", nil)
	if err != nil {
		return err
	}
	client := http.Client{Transport: r.transport(), Timeout: answerLimit}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("the registry does not respond: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the registry at %s: want 200 from GET /v2/, got %s", r.URL, resp.Status)
	}
	return nil
}

// wire is the registry's transport. It counts sent bytes and allows only the scheme of the registry's URL.
// go-containerregistry would otherwise try the other scheme and send the token over it.
type wire struct {
	next   http.RoundTripper
	scheme string
	moved  *atomic.Int64 // nil to count nothing
}

func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != w.scheme {
		if req.Body != nil {
			_ = req.Body.Close() // the body is not used
		}
		return nil, fmt.Errorf("this registry can be reached only over %s", w.scheme)
	}
	if req.Body != nil && req.Body != http.NoBody && w.moved != nil {
		req = req.Clone(req.Context())
		req.Body = &countedBody{ReadCloser: req.Body, moved: w.moved}
	}
	resp, err := w.next.RoundTrip(req)
	if err != nil && req.Method == http.MethodPatch && req.GetBody != nil {
		return w.resume(req, err)
	}
	return resp, err
}

type countedBody struct {
	io.ReadCloser
	moved *atomic.Int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.moved.Add(int64(n))
	return n, err
}

// pushed is a layer during a push. It implements go-containerregistry's layer with the values that the build knows, so that
// nothing is hashed again. Its body is opened only if the server does not have the layer.
type pushed struct {
	*layer
	ctx    context.Context // of the push; the interface has no place for it
	report func(done int64)
	opened atomic.Bool
	took   time.Duration
}

func (p *pushed) Digest() (v1.Hash, error)            { return p.built.Digest, nil }
func (p *pushed) Size() (int64, error)                { return p.built.Size, nil }
func (p *pushed) MediaType() (types.MediaType, error) { return p.built.MediaType, nil }
func (p *pushed) Compressed() (io.ReadCloser, error) {
	p.opened.Store(true)
	body, err := p.open(p.ctx)
	if err != nil {
		return nil, err
	}
	return &reportedBody{ReadCloser: body, report: p.report}, nil
}

// stream returns a reader of the layer, which is written from its files while it is read. Close waits for the writer.
func (l *files) stream(ctx context.Context) io.ReadCloser {
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.CloseWithError(l.writeTar(ctx, w, func(int) {}))
	}()
	return &streamedLayer{PipeReader: r, done: done}
}

type streamedLayer struct {
	*io.PipeReader
	done chan struct{}
}

func (s *streamedLayer) Close() error {
	err := s.PipeReader.Close()
	<-s.done
	return err
}

type reportedBody struct {
	io.ReadCloser
	report func(done int64)
	done   int64
}

func (b *reportedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.done += int64(n)
	b.report(b.done)
	return n, err
}

// manifestOf is a manifest in the form that go-containerregistry needs.
type manifestOf struct{ *image }

func (m manifestOf) RawManifest() ([]byte, error)        { return m.manifest, nil }
func (m manifestOf) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }

// push sends what the registry does not have: layers, config, and finally the manifest.
func push(ctx context.Context, img *image, to Registry, tag name.Tag, scheme string, moved *atomic.Int64, report func(l *layer, done int64)) ([]*pushed, error) {
	options := []remote.Option{remote.WithContext(ctx), remote.WithTransport(&wire{next: to.transport(), scheme: scheme, moved: moved})}
	pusher, err := remote.NewPusher(options...)
	if err != nil {
		return nil, err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(pushes)
	layers := make([]*pushed, len(img.layers))
	for i, l := range img.layers {
		layers[i] = &pushed{layer: l, ctx: groupCtx, report: func(done int64) { report(l, done) }}
	}
	for _, p := range layers {
		group.Go(func() error {
			begin := time.Now()
			full, err := partial.CompressedToLayer(p)
			if err == nil {
				err = pusher.Upload(groupCtx, tag.Context(), full)
			}
			p.took = time.Since(begin)
			if err != nil {
				return fmt.Errorf("layer %s: %w", p.name, err)
			}
			return nil
		})
	}
	group.Go(func() error {
		if err := pusher.Upload(groupCtx, tag.Context(), static.NewLayer(img.config, types.OCIConfigJSON)); err != nil {
			return fmt.Errorf("config: %w", err)
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		return layers, err
	}
	if there, err := remote.Head(tag, options...); err == nil && there.Digest == img.digest {
		return layers, nil // the tag already points to this image
	}
	if err := pusher.Put(ctx, tag, manifestOf{img}); err != nil {
		return layers, fmt.Errorf("manifest: %w", err)
	}
	return layers, nil
}

// statusOf returns the HTTP status with which a registry rejected a request, or 0 for other errors.
func statusOf(err error) int {
	if refusal, ok := errors.AsType[*transport.Error](err); ok {
		return refusal.StatusCode
	}
	return 0
}

// refusedFor reports whether the registry rejected a push with an error code.
func refusedFor(err error, code transport.ErrorCode) bool {
	refusal, ok := errors.AsType[*transport.Error](err)
	if !ok {
		return false
	}
	for _, diagnostic := range refusal.Errors {
		if diagnostic.Code == code {
			return true
		}
	}
	return false
}
