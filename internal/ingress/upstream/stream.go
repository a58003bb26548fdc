package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"penstock/internal/ingress/buffer"
	"penstock/internal/ingress/http1"
)

// Stream is one exchange over a connection that carries many (HTTP/2, in the clear by prior knowledge, RFC 9113 section
// 3.3): Begin, RoundTrip, Next until io.EOF, Close. Write and End are for a second goroutine that sends the body. Abort
// may be called by any.
type Stream struct {
	pool *Pool
	on   *shared

	ctx    context.Context
	cancel context.CancelCauseFunc
	limits Limits
	timer  *time.Timer
	moved  atomic.Int64 // when a byte last moved, Unix nanoseconds

	body *streamBody
	out  *io.PipeWriter

	mu     sync.Mutex // keeps 1xx responses before the response
	headed bool
	early  chan early    // nil until a 1xx response has come
	passed chan struct{} // closed when all of those were passed on

	resp    *http.Response
	buf     []byte // what Next returns is in it
	full    bool   // the last read filled buf, so there is more
	sent    bool   // the library now holds the stream that was reserved on the connection
	untaken bool
}

// Begin starts an exchange at now. It ends with ctx.
func (s *Stream) Begin(ctx context.Context, now time.Time, limits Limits) {
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	s.limits = limits
	s.moved.Store(now.UnixNano())
	if left := s.left(now); left > 0 {
		s.timer = time.AfterFunc(left, s.watch)
	}
}

// left returns how long the exchange may go on if no byte moves from now on; 0 means for ever.
func (s *Stream) left(now time.Time) time.Duration {
	var left time.Duration
	if s.limits.Silence > 0 {
		left = max(time.Unix(0, s.moved.Load()).Add(s.limits.Silence).Sub(now), 1)
	}
	if end := s.limits.End; !end.IsZero() {
		if total := max(end.Sub(now), 1); left == 0 || total < left {
			left = total
		}
	}
	return left
}

// watch ends the exchange when one of its limits has been reached.
func (s *Stream) watch() {
	now := time.Now()
	switch end := s.limits.End; {
	case !end.IsZero() && !now.Before(end):
		s.cancel(ErrTooLong)
	case s.limits.Silence > 0 && now.Sub(time.Unix(0, s.moved.Load())) >= s.limits.Silence:
		s.cancel(ErrSilent)
	default:
		s.timer.Reset(s.left(now))
	}
}

// Touch records that bytes of the exchange move.
func (s *Stream) Touch() { s.moved.Store(time.Now().UnixNano()) }

// came records that bytes have come from the replica.
func (s *Stream) came() {
	now := time.Now()
	s.moved.Store(now.UnixNano())
	s.pool.Answered(now)
}

// Piped makes Write and End supply r's body. It must be called before RoundTrip.
func (s *Stream) Piped(r *http.Request) {
	in, out := io.Pipe()
	s.out = out
	s.body = &streamBody{PipeReader: in, request: r}
	r.Body = s.body
	// While the library waits for more of a body it does not watch the context.
	context.AfterFunc(s.ctx, func() { in.CloseWithError(context.Cause(s.ctx)) })
}

// streamBody is read by the library's goroutine for the stream, which reads the trailer after the end.
type streamBody struct {
	*io.PipeReader
	request *http.Request
	trailer http.Header // set before the end
}

func (b *streamBody) Read(p []byte) (int, error) {
	n, err := b.PipeReader.Read(p)
	if errors.Is(err, io.EOF) {
		maps.Copy(b.request.Trailer, b.trailer)
	}
	return n, err
}

// Write sends bytes of the body.
func (s *Stream) Write(p []byte) (int, error) {
	n, err := s.out.Write(p)
	if n > 0 {
		s.Touch()
	}
	return n, err
}

// End ends the body. Only fields that the request's Trailer names are sent.
func (s *Stream) End(trailer http.Header) error {
	s.body.trailer = make(http.Header, len(trailer))
	for name, values := range trailer {
		if _, named := s.body.request.Trailer[name]; named && !http1.ForbiddenInTrailer(name) {
			s.body.trailer[name] = values
		}
	}
	return s.out.Close()
}

// early is the head of a 1xx response.
type early struct {
	status int
	fields http.Header
}

// maxEarly bounds the 1xx responses that wait for a slow client; more than that are dropped.
const maxEarly = 16

// RoundTrip sends r and waits for the head of its response, which it puts into h without fields that concern only this
// connection. It calls interim for 1xx responses, in another goroutine: the library's goroutine reads for all streams of the
// connection and must not wait for one client.
func (s *Stream) RoundTrip(r *http.Request, h http.Header, interim func(status int, h http.Header)) (status int, err error) {
	trace := &httptrace.ClientTrace{Got1xxResponse: func(status int, fields textproto.MIMEHeader) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.came()
		if s.headed {
			return nil
		}
		if s.early == nil {
			s.early, s.passed = make(chan early, maxEarly), make(chan struct{})
			go func() {
				defer close(s.passed)
				for e := range s.early {
					copyFields(h, e.fields)
					interim(e.status, h)
				}
			}()
		}
		select {
		case s.early <- early{status, http.Header(fields)}:
		default:
		}
		return nil
	}}
	r.URL.Scheme = s.on.at.scheme()
	s.sent = true
	resp, err := s.on.cc.RoundTrip(r.WithContext(httptrace.WithClientTrace(s.ctx, trace)))
	s.mu.Lock()
	s.headed = true
	s.mu.Unlock()
	if s.early != nil { // nobody else uses it from now on
		close(s.early)
		<-s.passed
	}
	if err != nil {
		return 0, s.explain(err)
	}
	s.came()
	s.resp = resp
	copyFields(h, resp.Header)
	if resp.StatusCode < 200 {
		return 0, fmt.Errorf("%w: status %d as the response", ErrProtocol, resp.StatusCode)
	}
	return resp.StatusCode, nil
}

// copyFields copies fields, without those that HTTP/2 does not have (RFC 9113 section 8.2.2).
func copyFields(to, from http.Header) {
	for name, values := range from {
		switch name {
		case "Connection", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Upgrade", "Te", "Trailer":
		default:
			to[name] = values
		}
	}
}

// Next returns the next bytes of the body, which are valid until the next call. At io.EOF the trailer is complete. It flushes
// to before it waits for the network, so that nothing is held back.
func (s *Stream) Next(to http.Flusher) ([]byte, error) {
	switch {
	case s.buf == nil:
		s.buf = s.pool.client.buffers.Small()
	case s.full && len(s.buf) < buffer.LargeSize:
		s.pool.client.buffers.Put(s.buf)
		s.buf = s.pool.client.buffers.Large()
	}
	// If the response ends with its head, the client must get it that way: gRPC does not accept an empty body after it.
	if !s.full && s.resp.ContentLength != 0 && s.resp.Request.Method != http.MethodHead {
		to.Flush()
	}
	n, err := s.resp.Body.Read(s.buf)
	s.full = n == len(s.buf)
	if n > 0 {
		s.came()
	}
	switch {
	case err == nil, errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
	case n > 0:
		err = nil // the next call returns it
	default:
		err = s.explain(err)
	}
	return s.buf[:n], err
}

// Forget makes the bytes that Next returned stay valid for ever. It must be called before Close.
func (s *Stream) Forget() { s.buf = nil }

// Trailer returns the fields after the body.
func (s *Stream) Trailer() http.Header {
	if len(s.resp.Trailer) == 0 {
		return nil
	}
	h := make(http.Header, len(s.resp.Trailer))
	for name, values := range s.resp.Trailer {
		if !http1.ForbiddenInTrailer(name) && len(values) > 0 {
			h[name] = values
		}
	}
	return h
}

// The library's texts for requests that the other end has promised not to have processed, or that were never sent. It has no
// error values for them.
var untakenWords = []string{
	"http2: Transport received Server's graceful shutdown GOAWAY",
	"http2: client conn not usable",
	"http2: client conn could not be established",
	"http2: client conn is closed",
}

// streamError has the fields of the library's error for one stream, so that errors.As fills it.
type streamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

func (e streamError) Error() string { return fmt.Sprintf("stream error %d", e.Code) }

// codeRefused means that the stream was closed before anything was done for it (RFC 9113 section 8.7).
const codeRefused = 7

// explain translates the library's errors to those of this package.
func (s *Stream) explain(err error) error {
	if cause := context.Cause(s.ctx); errors.Is(cause, ErrTooLong) || errors.Is(cause, ErrSilent) {
		return cause
	}
	var stream streamError
	text := err.Error()
	switch {
	case errors.As(err, &stream):
		s.untaken = stream.Code == codeRefused
		if !strings.Contains(text, "received from peer") {
			return fmt.Errorf("%w: %w", ErrProtocol, err)
		}
	case strings.HasPrefix(text, "connection error: "), strings.Contains(text, "looked like an HTTP/1.1 header"):
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	default:
		for _, words := range untakenWords {
			s.untaken = s.untaken || text == words
		}
	}
	return err
}

// Untaken says whether the replica provably did nothing with the request of this exchange.
func (s *Stream) Untaken(error) bool { return s.untaken }

// Heard says whether a byte of the response came.
func (s *Stream) Heard() bool { return s.resp != nil }

// Abort ends all reads and writes. The owner still calls Close.
func (s *Stream) Abort() { s.cancel(context.Canceled) }

// Close ends the exchange, whether or not it is over.
func (s *Stream) Close() {
	if s.timer != nil {
		s.timer.Stop()
	}
	s.cancel(nil)
	if s.resp != nil {
		s.resp.Body.Close()
	}
	if s.buf != nil {
		s.pool.client.buffers.Put(s.buf)
		s.buf = nil
	}
	if !s.sent {
		s.on.cc.Release()
	}
	s.pool.leave(s.on)
}
