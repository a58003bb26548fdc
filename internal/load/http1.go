package load

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// sender sends one request and fills in its record.
type sender interface {
	send(ctx context.Context, s *scratch, body []byte, rec *Record)
	opened() int64 // number of connections opened so far
	close()
}

// scratch holds the buffers that a worker reuses.
type scratch struct {
	out    []byte // the request
	in     []byte // a piece of the response
	events events
	gaps   []time.Duration // between events
	delays []time.Duration // delays of stamped events
	tally  *tally
}

const (
	maxHeader = 1 << 20
	inline    = 64 << 10 // larger bodies are sent while the response is read
	piece     = 4 << 10  // read size; small, because there may be thousands of open streams
	largePart = 64 << 10 // read size for large responses
)

// http1 sends HTTP/1.1 requests over its own connections, one request at a time on each. Unlike net/http's client, it never
// retries a request, so that every fault is seen.
type http1 struct {
	req    *Request
	target Target
	tls    *tls.Config // nil for plain http
	head   []byte      // head of every request, up to Content-Length
	plain  *http.Request
	watch  *stopwatch
	dialed atomic.Int64

	mu   sync.Mutex
	free []*conn1 // last in, first out
	open map[*conn1]struct{}
	shut bool
}

// conn1 is a connection to the target.
type conn1 struct {
	net.Conn // TLS or not
	raw      syscall.RawConn
	br       *bufio.Reader
	left     int64 // bytes that may still be read; limits headers
	ended    bool  // the server has announced that it closes the connection
}

func (c *conn1) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, errTooLarge
	}
	n, err := c.Conn.Read(p)
	c.left -= int64(n)
	c.ended = c.ended || err == io.EOF
	return n, err
}

func newHTTP1(req *Request, u *url.URL, target Target, watch *stopwatch) *http1 {
	h := &http1{req: req, target: target, watch: watch, open: map[*conn1]struct{}{}, plain: &http.Request{Method: req.Method}}
	if u.Scheme == "https" || u.Scheme == "wss" {
		h.tls = req.tls(u.Hostname())
	}
	h.head = fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: %s\r\n", req.Method, u.RequestURI(), hostOf(req, u))
	for name, values := range req.Header {
		if name == "Host" {
			continue
		}
		for _, v := range values {
			h.head = fmt.Appendf(h.head, "%s: %s\r\n", name, v)
		}
	}
	if req.Header.Get("User-Agent") == "" {
		h.head = append(h.head, "User-Agent: "+userAgent+"\r\n"...)
	}
	if req.Events && req.Header.Get("Accept") == "" {
		h.head = append(h.head, "Accept: text/event-stream\r\n"...)
	}
	return h
}

const userAgent = "penstock-bench"

func hostOf(req *Request, u *url.URL) string {
	if h := req.Header.Get("Host"); h != "" {
		return h
	}
	return u.Host
}

func (h *http1) opened() int64 { return h.dialed.Load() }

// close closes all connections, including those in use.
func (h *http1) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.shut = true
	for c := range h.open {
		c.Conn.Close()
	}
}

// take returns an idle connection, or opens a new one.
func (h *http1) take(ctx context.Context, rec *Record, deadline time.Time) (*conn1, phase, error) {
	for !h.req.NewConnections {
		h.mu.Lock()
		n := len(h.free)
		if n == 0 {
			h.mu.Unlock()
			break
		}
		c := h.free[n-1]
		h.free[n-1] = nil
		h.free = h.free[:n-1]
		h.mu.Unlock()
		// A server may close an idle connection. This is not a failure of a request.
		if idle(c.raw) {
			rec.Reused = true
			return c, waiting, c.SetDeadline(deadline)
		}
		h.drop(c)
	}
	return h.dial(ctx, rec, deadline)
}

func (h *http1) dial(ctx context.Context, rec *Record, deadline time.Time) (*conn1, phase, error) {
	d := net.Dialer{Deadline: deadline, KeepAlive: -1}
	nc, err := d.DialContext(ctx, "tcp", h.target.Address)
	if err != nil {
		return nil, dialing, err
	}
	h.dialed.Add(1)
	c := &conn1{Conn: nc, left: maxHeader}
	if c.raw, err = rawOf(nc); err != nil {
		nc.Close()
		return nil, dialing, err
	}
	if h.tls != nil {
		c.Conn = tls.Client(nc, h.tls)
	}
	c.br = bufio.NewReaderSize(c, piece)
	h.mu.Lock()
	shut := h.shut
	if !shut {
		h.open[c] = struct{}{}
	}
	h.mu.Unlock()
	if shut {
		nc.Close()
		return nil, dialing, errStopped
	}
	if err := c.SetDeadline(deadline); err != nil {
		h.drop(c)
		return nil, dialing, err
	}
	if t, ok := c.Conn.(*tls.Conn); ok {
		if err := t.HandshakeContext(ctx); err != nil {
			h.drop(c)
			return nil, handshaking, err
		}
	}
	rec.Connected = h.watch.now()
	return c, waiting, nil
}

func (h *http1) drop(c *conn1) {
	h.mu.Lock()
	delete(h.open, c)
	h.mu.Unlock()
	c.Conn.Close()
}

func (h *http1) putBack(c *conn1) {
	h.mu.Lock()
	h.free = append(h.free, c)
	h.mu.Unlock()
}

// fail records why a request failed.
func fail(rec *Record, now time.Duration, err error, at phase) {
	rec.LastByte = now
	rec.Error = classify(err, at)
	if rec.Detail == "" {
		rec.Detail = err.Error()
	}
}

func (h *http1) send(ctx context.Context, s *scratch, body []byte, rec *Record) {
	deadline := h.watch.wall(rec.Sent + h.req.Timeout)
	c, at, err := h.take(ctx, rec, deadline)
	if err != nil {
		fail(rec, h.watch.now(), err, at)
		return
	}
	s.out = append(s.out[:0], h.head...)
	if body != nil {
		s.out = append(s.out, "Content-Length: "...)
		s.out = strconv.AppendInt(s.out, int64(len(body)), 10)
		s.out = append(s.out, "\r\n"...)
	}
	if h.req.NewConnections {
		s.out = append(s.out, "Connection: close\r\n"...)
	}
	s.out = append(s.out, "\r\n"...)

	var upload sync.WaitGroup
	var late error // error of an upload that runs beside the response
	if len(body) <= inline {
		s.out = append(s.out, body...)
		_, err = c.Write(s.out)
	} else if _, err = c.Write(s.out); err == nil {
		upload.Go(func() { _, late = c.Write(body) })
	}
	keep, at, rerr := h.receive(c, s, rec, deadline)
	if !keep {
		h.drop(c) // also ends an unfinished upload
	}
	upload.Wait()
	if rerr != nil {
		// A server that responds before it has read the whole request may close at once. Then its response counts, not the
		// write error.
		if err != nil && at == waiting {
			rerr = err
		}
		fail(rec, h.watch.now(), rerr, at)
		return
	}
	if err != nil || late != nil {
		if keep {
			h.drop(c)
		}
		keep = false
	}
	rec.BytesOut = int64(len(body))
	if keep {
		h.putBack(c)
	}
	if rec.Status >= 400 {
		rec.Error = Status
	}
}

// receive reads the response, and reports whether the connection can be reused.
func (h *http1) receive(c *conn1, s *scratch, rec *Record, deadline time.Time) (keep bool, at phase, err error) {
	c.left = maxHeader
	if _, err := c.br.Peek(1); err != nil {
		return false, waiting, err
	}
	rec.FirstByte = h.watch.now()
	var resp *http.Response
	for {
		resp, err = http.ReadResponse(c.br, h.plain)
		if err != nil && c.ended {
			return false, answering, io.ErrUnexpectedEOF // the parser's error about half a line adds nothing
		}
		if err != nil {
			return false, answering, err
		}
		if resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			break
		}
	}
	rec.Status = resp.StatusCode
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return false, answering, errors.New("switched protocols unasked")
	}
	c.left = 1 << 62
	if h.req.LeaveAfter > 0 {
		if leave := h.watch.wall(rec.Sent + h.req.LeaveAfter); leave.Before(deadline) {
			if err := c.SetReadDeadline(leave); err != nil {
				return false, answering, err
			}
		}
	}
	if err := readBody(resp.Body, s, rec, h.req, h.watch); err != nil {
		return false, answering, err
	}
	if rec.Left {
		return false, answering, nil
	}
	if c.br.Buffered() > 0 {
		return false, answering, errors.New("bytes after the answer's end")
	}
	return !resp.Close && !h.req.NewConnections, answering, nil
}

var errStamp = errors.New("event's data does not begin with a Unix time in nanoseconds")

// readBody reads a response to its end and measures its timing.
func readBody(body io.Reader, s *scratch, rec *Record, req *Request, watch *stopwatch) error {
	s.events = events{}
	last, bad := rec.FirstByte, false
	for {
		n, err := body.Read(s.in)
		now := watch.now()
		if n > 0 {
			rec.Bytes += int64(n)
			rec.LastByte = now
			if req.Events && rec.Status < 400 {
				s.events.feed(s.in[:n], func(data []byte) {
					if rec.Events == 0 {
						rec.FirstEvent = now
					} else {
						s.gap(now - last)
						rec.LongestGap = max(rec.LongestGap, now-last)
					}
					last = now
					rec.Events++
					if req.Stamped {
						at, ok := stamp(data)
						bad = bad || !ok
						s.delay(time.Duration(time.Now().UnixNano() - at))
					}
				})
			}
		}
		if bad {
			rec.Error, rec.Detail = Content, errStamp.Error()
			rec.Left = true // the rest is not read
			return nil
		}
		switch {
		case err == io.EOF:
			rec.LastByte = max(rec.LastByte, now)
			return nil
		case err != nil && req.LeaveAfter > 0 && now-rec.Sent >= req.LeaveAfter && leaving(err):
			rec.LastByte, rec.Left = now, true
			return nil
		case err != nil:
			return err
		}
		if rec.Bytes > largePart && len(s.in) < largePart {
			s.in = make([]byte, largePart)
		}
	}
}

// stamp parses the number at the start of data.
func stamp(data []byte) (int64, bool) {
	end := 0
	for end < len(data) && data[end] >= '0' && data[end] <= '9' {
		end++
	}
	n, err := strconv.ParseInt(string(data[:end]), 10, 64)
	return n, err == nil
}

// leaving reports whether a read ended because of the client's own limit, LeaveAfter.
func leaving(err error) bool {
	class := classify(err, answering)
	return class == Timeout || class == Stopped
}
