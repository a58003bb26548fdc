package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// http2 sends HTTP/2 requests over the standard library's connections: with TLS, or unencrypted with prior knowledge (RFC 9113
// 3.3). Requests share a connection up to the number of streams that the server allows; then it opens another. It never
// retries a request.
type http2 struct {
	req    *Request
	url    *url.URL
	header http.Header
	host   string
	target Target
	watch  *stopwatch
	dialed atomic.Int64
	t      *http.Transport
	gate   chan struct{} // held while a connection is opened, so that waiting requests can share it

	mu    sync.Mutex
	conns []*http.ClientConn
	shut  bool
}

func newHTTP2(req *Request, u *url.URL, target Target, watch *stopwatch) *http2 {
	h := &http2{req: req, url: u, watch: watch, header: req.Header.Clone(), host: hostOf(req, u), target: target, gate: make(chan struct{}, 1)}
	if h.header == nil {
		h.header = http.Header{}
	}
	h.header.Del("Host")
	if h.header.Get("User-Agent") == "" {
		h.header.Set("User-Agent", userAgent)
	}
	if req.Events && h.header.Get("Accept") == "" {
		h.header.Set("Accept", "text/event-stream")
	}
	var p http.Protocols
	p.SetHTTP2(u.Scheme == "https")
	p.SetUnencryptedHTTP2(u.Scheme == "http")
	h.t = &http.Transport{
		Protocols:          &p,
		DisableCompression: true,
		TLSClientConfig:    req.tls(u.Hostname()),
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			d := net.Dialer{KeepAlive: -1}
			c, err := d.DialContext(ctx, "tcp", target.Address)
			if err != nil {
				return nil, &dialError{err}
			}
			h.dialed.Add(1)
			return c, nil
		},
	}
	return h
}

// dialError marks an error as one of connecting, in contrast to later ones.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

func (h *http2) opened() int64 { return h.dialed.Load() }

// close ends all connections, also those under way.
func (h *http2) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.shut = true
	for _, c := range h.conns {
		c.Close()
	}
}

// reserve returns a connection with room for another stream, or nil.
func (h *http2) reserve() (*http.ClientConn, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.shut {
		return nil, errStopped
	}
	h.conns = slices.DeleteFunc(h.conns, func(c *http.ClientConn) bool { return c.Err() != nil })
	for _, c := range h.conns {
		if c.Reserve() == nil {
			return c, nil
		}
	}
	return nil, nil
}

// take returns a connection with a reserved stream.
func (h *http2) take(ctx context.Context, rec *Record) (*http.ClientConn, phase, error) {
	c, err := h.reserve()
	if c == nil && err == nil {
		select {
		case h.gate <- struct{}{}:
			defer func() { <-h.gate }()
		case <-ctx.Done():
			return nil, dialing, ctx.Err()
		}
		c, err = h.reserve() // another may have opened one meanwhile
	}
	if c != nil || err != nil {
		rec.Reused = true
		return c, waiting, err
	}
	if c, err = h.t.NewClientConn(ctx, h.url.Scheme, h.target.Address); err != nil {
		at := handshaking
		if _, ok := errors.AsType[*dialError](err); ok {
			at = dialing
		}
		return nil, at, err
	}
	rec.Connected = h.watch.now()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.shut {
		c.Close()
		return nil, waiting, errStopped
	}
	if err := c.Reserve(); err != nil {
		c.Close()
		return nil, waiting, err
	}
	h.conns = append(h.conns, c)
	return c, waiting, nil
}

func (h *http2) send(ctx context.Context, s *scratch, body []byte, rec *Record) {
	run := ctx
	ctx, cancel := context.WithDeadline(run, h.watch.wall(rec.Sent+h.req.Timeout))
	defer cancel()
	c, at, err := h.take(ctx, rec)
	if err != nil {
		fail(rec, h.watch.now(), err, at)
		return
	}
	r := (&http.Request{
		Method: h.req.Method, URL: h.url, Host: h.host, Header: h.header,
		Proto: "HTTP/2.0", ProtoMajor: 2,
	}).WithContext(ctx)
	if body != nil {
		// Copy the data, because a stream that has ended may still be read for a moment.
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(bytes.Clone(body))), int64(len(body))
	}
	resp, err := c.RoundTrip(r)
	now := h.watch.now()
	if err != nil {
		fail(rec, now, ended(run, err), waiting)
		return
	}
	defer resp.Body.Close()
	rec.FirstByte, rec.Status = now, resp.StatusCode
	if resp.ProtoMajor != 2 {
		fail(rec, now, fmt.Errorf("want HTTP/2, got %s", resp.Proto), answering)
		return
	}
	if h.req.LeaveAfter > 0 {
		leave := time.AfterFunc(time.Until(h.watch.wall(rec.Sent+h.req.LeaveAfter)), cancel)
		defer leave.Stop()
	}
	if err := readBody(resp.Body, s, rec, h.req, h.watch); err != nil {
		fail(rec, h.watch.now(), ended(run, err), answering)
		return
	}
	rec.BytesOut = int64(len(body))
	if rec.Status >= 400 {
		rec.Error = Status
	}
}

// ended returns why a request failed: its own error, or that the run was stopped, which shows up as many different errors.
func ended(run context.Context, err error) error {
	if run.Err() != nil {
		return errStopped
	}
	return err
}
