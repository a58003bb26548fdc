package ingress

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"penstock/internal/accesslog"
	"penstock/internal/ingress/upstream"
	"penstock/internal/resource"
)

// errCut ends the contexts of requests that a drain has stopped waiting for. Any other cause means that the client left.
var errCut = errors.New("the drain took too long")

// exchange is one request and its response.
type exchange struct {
	visit
	scheme string
	w      http.ResponseWriter
	r      *http.Request

	end        time.Time // by RequestTimeout; zero: none
	until      time.Time // write deadline of an HTTP/2 stream
	retryAfter string
	committed  bool           // the response's head has been sent
	events     bool           // the head of an event stream was sent while the request waited; committed says whether its end has begun
	stage      resource.Stage // the last one that the client was told of
	websocket  bool
	stream     bool // to be sent over HTTP/2

	cors        *cors // set if the origin that asks may read the response
	origin      string
	preflight   bool
	certificate string // the client's, in the form that the replica gets
	hops        string // what the replica is told of the apps that the request has been to
	sticky      bool   // the client must come back to the same replica
	affinity    string // the key of the replica that the client is told to come back to

	out    []byte   // the request's head, followed by a small body; used again by the next exchange
	small  []byte   // the request's body if it is small and was read; used again likewise
	values []string // of the response's fields; used again likewise
	read   bool     // small has been read
	lent   bool     // small was given to the HTTP/2 library, which may still read it after the exchange
	body   *upload

	fresh  bool   // use no pooled connection, as one was stale
	resent bool   // was sent a second time, which is the limit: the request may have made a replica crash
	reason string // why no replica could be reached, for the answer
}

// Handler serves requests that come over scheme, "http" or "https".
func (in *Ingress) Handler(scheme string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor > 1 || r.Header["Upgrade"] != nil { // others end before their connection does
			in.life.enter()
			defer in.life.exit()
		}
		x := in.exchanges.Get().(*exchange)
		x.begin(in, scheme, w, r)
		v := x.serve()
		x.finish()
		in.exchanges.Put(x)
		if v == cut {
			// This is a handler's only way to show the client that the response is not complete.
			panic(http.ErrAbortHandler)
		}
	})
}

func (x *exchange) begin(in *Ingress, scheme string, w http.ResponseWriter, r *http.Request) {
	now := time.Now()
	*x = exchange{scheme: scheme, w: w, r: r, out: x.out[:0], small: x.small[:0], values: x.values[:0]}
	x.in, x.client, x.ticket.follower = in, clientOf(r), x
	x.rec = accesslog.Record{
		Start: now, Client: x.client.address, Forwarded: forwarded(r, x.client), Connection: x.client.number,
		Scheme: scheme, Proto: r.Proto, Host: hostname(r.Host), Method: r.Method, Path: requested(r), UserAgent: r.UserAgent(),
	}
	x.ticket.host, x.ticket.door, x.ticket.from, x.ticket.Arrived = x.rec.Host, x.client.door, x.client.addr, now
	if c := x.client; !c.until.IsZero() && c.until.Sub(now) < staleGuard {
		c.until = time.Time{}
		_ = c.conn.SetWriteDeadline(time.Time{}) // see guard
	}
}

// finish counts and records the exchange, and releases what it used.
func (x *exchange) finish() {
	x.visit.finish()
	if x.r.ProtoMajor > 1 {
		// net/http reads the trailer when the client has received the body, which is long after this.
		x.values = nil
	}
	if x.lent {
		x.small = nil
	}
	clear(x.values)
	*x = exchange{out: trim(x.out), small: trim(x.small), values: x.values}
}

// trim drops a buffer that grew large for one request.
func trim(b []byte) []byte {
	if cap(b) > 2*maxSmall {
		return nil
	}
	return b
}

func (x *exchange) serve() verdict {
	if x.r.ProtoMajor == 2 && !fitsHTTP1(x.r) {
		x.answer(http.StatusBadRequest, accesslog.FlagDownstreamProtocol, "the request is malformed")
		return over
	}
	if x.r.Method == http.MethodConnect {
		x.answer(http.StatusMethodNotAllowed, accesslog.FlagDownstreamProtocol, "CONNECT is for forward proxies, which this is not")
		return over
	}
	for {
		rt := x.route()
		if rt == nil {
			x.answerNoRoute()
			return over
		}
		x.rec.App = rt.app
		if 1+fields(x.r.Header) > rt.maxHeaders { // with Host, which is not among them
			x.answer(http.StatusRequestHeaderFieldsTooLarge, accesslog.FlagDownstreamProtocol, "too many header fields")
			return over
		}
		if rt.policy != nil && x.answerBeforeRoute(rt.policy) {
			return over
		}
		if x.scheme == "http" && !rt.allowInsecure {
			x.redirect()
			return over
		}
		if rt.policy != nil {
			if !x.certified(rt.policy) {
				x.answer(http.StatusForbidden, accesslog.FlagDownstreamProtocol, textCertificate)
				return over
			}
			if x.sticky = rt.policy.sticky; x.sticky {
				x.ticket.Prefer = affinityOf(x.r)
			}
		}
		if x.inLoop(rt) {
			return over
		}
		x.stream = rt.http2 || rt.detect && x.r.ProtoMajor == 2 && isGRPC(x.r.Header)
		x.websocket = !x.stream && wantsWebSocket(x.r)
		if !x.read && x.hasSmall() {
			if err := x.readSmall(); err != nil {
				return x.badBody(err)
			}
		}
		rm := rt.choose()
		x.client.asks(rm)
		v := x.place(x.r.Context(), rm, x)
		if v != again {
			x.endUpload()
			return v
		}
		clear(x.w.Header())
	}
}

// route returns the route of the request, or nil if it has none.
func (x *exchange) route() *route {
	t := x.in.table.Load()
	if x.client.door != 0 {
		return t.ownRoute(x.client.door, x.rec.Host)
	}
	return t.route(x.rec.Host, x.client.addr)
}

func fields(h http.Header) (n int) {
	for _, values := range h {
		n += len(values)
	}
	return n
}

// left ends the exchange because its client has left, or because the drain cuts it.
func (x *exchange) left(err error) verdict {
	if !errors.Is(err, errCut) {
		x.rec.Flags |= accesslog.FlagDownstreamTermination
		return cut
	}
	if x.committed {
		x.rec.Flags |= accesslog.FlagLocalReset
		return cut
	}
	x.retryAfter = "1"
	x.answer(http.StatusServiceUnavailable, accesslog.FlagLocalReset, "the ingress is being replaced, and this request waited for too long")
	return over
}

// try sends the request to r and passes its response on.
func (x *exchange) try(ctx context.Context, rm *guardedRoom, r *replica) verdict {
	if x.affinity = ""; x.sticky && x.ticket.Prefer != r.Key {
		x.affinity = r.Key
	}
	settings := &x.ticket.settings
	now := time.Now()
	if x.events {
		_ = x.passed(resource.StageReady) // if the client has left, passing on the response fails too
	}
	if x.end.IsZero() && settings.RequestTimeout > 0 {
		x.end = now.Add(settings.RequestTimeout)
	}
	if x.stream {
		return x.tryStream(rm, r)
	}
	conn, reused, err := r.pool.Get(ctx, now, x.rested())
	if err != nil {
		return x.unconnected(rm, r, err)
	}
	x.count(reused)
	if !reused {
		now = time.Now()
	}
	conn.Begin(now, upstream.Limits{Silence: settings.IdleTimeout, End: x.end})
	unbind := x.client.bind(ctx, conn)
	v, clean, err := x.talk(conn)
	if err != nil {
		v = x.broken(rm, r, conn, reused, err)
	}
	if unbind() && clean {
		r.pool.Put(conn, time.Now())
	} else {
		conn.Close()
	}
	return v
}

// count counts whether a connection was reused or dialled.
func (x *exchange) count(reused bool) {
	if reused {
		x.in.count(x.client).reused.Add(1)
	} else {
		x.in.count(x.client).dialled.Add(1)
	}
}

// talk sends the request over conn and passes on the response. Clean says whether conn can be used again. An error means
// that the response is not complete.
func (x *exchange) talk(conn *upstream.Conn) (v verdict, clean bool, err error) {
	if err := x.send(conn); err != nil {
		return over, false, err
	}
	h := x.header()
	var head upstream.Head
	for {
		if head, x.values, err = conn.ReadHead(x.r.Method, h, x.values); err != nil {
			return over, false, err
		}
		if !head.Interim() {
			break
		}
		x.interim(head.Status, h)
		x.values = nil // a replica may send any number
	}
	x.answered()
	if head.Status == http.StatusSwitchingProtocols {
		return x.tunnel(conn, head)
	}
	if x.events {
		whole, err := x.join(conn, head.Status, h)
		return over, err == nil && whole && x.body.sentOn(conn) && conn.Reusable(), err
	}
	x.sayHeld(h)
	x.guard()
	x.commit(head.Status)
	if err := x.receive(conn); err != nil {
		return over, false, err
	}
	x.trail(conn.Trailer())
	return over, x.body.sentOn(conn) && conn.Reusable(), nil
}

// sayHeld adds how long the request waited for a replica to the response's header (w3.org/TR/server-timing), if it did, and
// how long the start of the replica took, if the request waited for that.
// Azure's ingress says nothing.
func (x *exchange) sayHeld(h http.Header) {
	if held := x.ticket.held; held > 0 && x.ticket.settings.Behaviour != resource.Azure {
		value := "hold;dur=" + milliseconds(held)
		if r := x.ticket.woken; r != nil && r.start > 0 {
			value += ", start;dur=" + milliseconds(r.start) + ", load;dur=" + milliseconds(r.load)
		}
		// Clipped, because the values of the other fields are in the same array.
		h["Server-Timing"] = append(slices.Clip(h["Server-Timing"]), value)
	}
}

func milliseconds(d time.Duration) string {
	return strconv.FormatFloat(float64(d)/float64(time.Millisecond), 'f', 1, 64)
}

// header returns where the fields of the replica's response go: to the client, unless it has been sent a head already.
func (x *exchange) header() http.Header {
	if x.events {
		return http.Header{}
	}
	return x.w.Header()
}

// answered records that the response has begun.
func (x *exchange) answered() {
	x.rec.FirstByte = time.Since(x.rec.Start)
	x.body.settle()
}

// trail makes the server send the trailer after the body.
func (x *exchange) trail(trailer http.Header) {
	h := x.w.Header()
	for name, values := range trailer {
		h[http.TrailerPrefix+name] = values
	}
}

// interim passes on a 1xx response. A 100 only starts the upload: the server sends the client one of its own when the body
// is first read.
func (x *exchange) interim(status int, h http.Header) {
	switch {
	case status == http.StatusContinue:
		x.body.proceed()
	case x.events:
	case x.r.ProtoAtLeast(1, 1):
		x.guard()
		if x.r.ProtoMajor > 1 {
			// If the stream is reset, WriteHeader returns while another goroutine of net/http may still use h. With this field,
			// net/http copies the header first, and leaves the field out.
			h["Content-Length"] = nil
		}
		x.w.WriteHeader(status)
	}
	clear(h)
}

// errWrite wraps a failure to send to the client.
type errWrite struct{ error }

// response is a response whose body is being received.
type response interface {
	Next(to http.Flusher) ([]byte, error)
	Forget()
}

// receive passes the body on as it comes.
func (x *exchange) receive(conn response) error {
	flusher, ok := x.w.(http.Flusher)
	if !ok {
		return errWrite{errors.New("the server cannot flush")}
	}
	for {
		p, err := conn.Next(flusher)
		if len(p) > 0 {
			x.guard()
			n, err := x.w.Write(p)
			x.rec.BytesOut += int64(n)
			if err != nil {
				if x.r.ProtoMajor > 1 {
					conn.Forget() // net/http may still write p after its stream was reset
				}
				return errWrite{err}
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// takeAnswer is how long a client may take to receive a response of the ingress itself, when no app's settings apply.
const takeAnswer = time.Minute

// staleGuard: a write deadline that an earlier request left on the connection is removed if it is nearer than this.
const staleGuard = 30 * time.Second

// guard extends the write deadline by the idle timeout. It does so in large steps, which is cheaper: a client that
// receives nothing is cut after three quarters to the whole of the timeout.
func (x *exchange) guard() { x.guardFor(x.ticket.settings.IdleTimeout) }

func (x *exchange) guardFor(idle time.Duration) {
	if idle <= 0 || x.r.ProtoMajor == 1 && x.client.conn == nil {
		return
	}
	until := &x.until
	if x.r.ProtoMajor == 1 {
		until = &x.client.until
	}
	now := time.Now()
	if left := until.Sub(now); left > idle/4*3 && left <= idle {
		return
	}
	*until = now.Add(idle)
	// This fails only if the connection is closed, and then the write fails too.
	if x.r.ProtoMajor > 1 {
		_ = http.NewResponseController(x.w).SetWriteDeadline(*until)
	} else {
		_ = x.client.conn.SetWriteDeadline(*until)
	}
}
