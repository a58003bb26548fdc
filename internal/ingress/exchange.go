package ingress

import (
	"errors"
	"io"
	"net/http"
	"time"

	"penstock/internal/access"
	"penstock/internal/ingress/upstream"
)

// errCut is why the contexts of requests end that a drain does not wait for any longer. Else it is the client that left.
var errCut = errors.New("the drain took too long")

// exchange is one request and its response.
type exchange struct {
	in     *Ingress
	scheme string
	w      http.ResponseWriter
	r      *http.Request
	client *client
	rec    access.Record
	ticket ticket

	end        time.Time // by RequestTimeout; zero: none
	until      time.Time // write deadline of an HTTP/2 stream
	retryAfter string
	committed  bool // the response's head is out
	websocket  bool
	stream     bool // to be sent over HTTP/2

	cors        *cors // set when the page that asks may have the response
	origin      string
	preflight   bool
	certificate string // that the client has shown, as the replica gets it
	badge       string // of the replica that the client is told to come back to

	out    []byte   // the request's head, and a small body behind it; kept for the next exchange
	small  []byte   // the request's body when it is small, once it was read; kept likewise
	values []string // of the response's fields; kept likewise
	read   bool     // small has been read
	lent   bool     // small was given to HTTP/2's library, which may be reading it when the exchange is over
	body   *upload

	fresh  bool   // no pooled connection: one was stale
	resent bool   // once is enough for a request that may have brought a replica down
	reason string // what to say of that
}

// verdict is what became of one try.
type verdict int

const (
	over  verdict = iota // answered
	again                // another try, by the newest table
	cut                  // the connection to the client must end, as the response is not whole
)

// Handler serves the requests that come by that scheme, "http" or "https".
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
			// A handler's one way to end a response so that the client sees that it is not whole.
			panic(http.ErrAbortHandler)
		}
	})
}

func (x *exchange) begin(in *Ingress, scheme string, w http.ResponseWriter, r *http.Request) {
	now := time.Now()
	*x = exchange{in: in, scheme: scheme, w: w, r: r, client: clientOf(r), out: x.out[:0], small: x.small[:0], values: x.values[:0]}
	x.rec = access.Record{
		Start: now, Client: x.client.address, Forwarded: forwarded(r, x.client), Connection: x.client.number,
		Scheme: scheme, Proto: r.Proto, Host: hostname(r.Host), Method: r.Method, Path: requested(r), UserAgent: r.UserAgent(),
	}
	x.ticket = ticket{host: x.rec.Host, from: x.client.addr, since: now}
	if c := x.client; !c.until.IsZero() && c.until.Sub(now) < staleGuard {
		c.until = time.Time{}
		_ = c.conn.SetWriteDeadline(time.Time{}) // see guard
	}
}

// finish accounts for the exchange and lets go of what it used.
func (x *exchange) finish() {
	x.rec.Held = x.ticket.held
	x.rec.Duration = time.Since(x.rec.Start)
	x.in.count(x.client).requests.Add(1)
	if x.in.cfg.Observe != nil {
		x.in.cfg.Observe(&x.rec)
	}
	if x.r.ProtoMajor > 1 {
		// What a response has declared as its trailer net/http reads when the client has taken the body: long after this.
		x.values = nil
	}
	if x.lent {
		x.small = nil
	}
	clear(x.values)
	*x = exchange{out: trim(x.out), small: trim(x.small), values: x.values}
}

// trim lets a buffer go that one large head has blown up.
func trim(b []byte) []byte {
	if cap(b) > 2*maxSmall {
		return nil
	}
	return b
}

func (x *exchange) serve() verdict {
	if x.r.ProtoMajor == 2 && !fitsHTTP1(x.r) {
		x.answer(http.StatusBadRequest, access.FlagDownstreamProtocol, "the request is malformed")
		return over
	}
	if x.r.Method == http.MethodConnect {
		x.answer(http.StatusMethodNotAllowed, access.FlagDownstreamProtocol, "CONNECT is for forward proxies, which this is not")
		return over
	}
	for {
		rt := x.in.table.Load().route(x.rec.Host, x.client.addr)
		if rt == nil {
			x.answerNoRoute()
			return over
		}
		x.rec.App = rt.app
		if 1+fields(x.r.Header) > rt.maxHeaders { // with Host, which is not among them
			x.answer(http.StatusRequestHeaderFieldsTooLarge, access.FlagDownstreamProtocol, "too many header fields")
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
				x.answer(http.StatusForbidden, access.FlagDownstreamProtocol, textCertificate)
				return over
			}
			if x.ticket.sticky = rt.policy.sticky; x.ticket.sticky {
				x.ticket.badge = stickTo(x.r)
			}
		}
		x.stream = rt.http2 || rt.detect && x.r.ProtoMajor == 2 && isGRPC(x.r.Header)
		x.websocket = !x.stream && wantsWebSocket(x.r)
		v := x.place(rt.choose())
		if v != again {
			x.endUpload()
			return v
		}
		clear(x.w.Header())
	}
}

func fields(h http.Header) (n int) {
	for _, values := range h {
		n += len(values)
	}
	return n
}

// place gets a place in the room and makes one try.
func (x *exchange) place(rm *room) verdict {
	r, err := rm.claim(x.r.Context(), &x.ticket)
	if err == nil {
		x.rec.Revision, x.rec.Replica, x.rec.Upstream = rm.name, r.name, x.ticket.addr
		if x.badge = ""; x.ticket.sticky && x.ticket.badge != r.badge {
			x.badge = r.badge
		}
		v := again
		defer func() {
			if v == again {
				rm.release(r)
				return
			}
			x.rec.Duration = time.Since(x.rec.Start)
			rm.done(r, &x.rec)
		}()
		v = x.try(rm, r)
		return v
	}
	if refusal, ok := errors.AsType[*refusal](err); ok {
		x.rec.Revision = rm.name
		rm.refuses()
		x.answerRefusal(refusal)
		return over
	}
	switch {
	case errors.Is(err, errMoved):
		return again
	case errors.Is(err, errTried):
		return x.pause()
	default:
		return x.left(err)
	}
}

// left ends the exchange because its client or its time has gone.
func (x *exchange) left(err error) verdict {
	if !errors.Is(err, errCut) {
		x.rec.Flags |= access.FlagDownstreamTermination
		return cut
	}
	if x.committed {
		x.rec.Flags |= access.FlagLocalReset
		return cut
	}
	x.retryAfter = "1"
	x.answer(http.StatusServiceUnavailable, access.FlagLocalReset, "the ingress is being replaced, and this request waited for too long")
	return over
}

// try sends the request to r and passes its response on.
func (x *exchange) try(rm *room, r *replica) verdict {
	settings := &x.ticket.settings
	ctx := x.r.Context()
	if x.end.IsZero() && settings.RequestTimeout > 0 {
		x.end = time.Now().Add(settings.RequestTimeout)
	}
	if x.rec.Attempts > 0 {
		x.in.count(x.client).retried.Add(1)
	}
	x.rec.Attempts++
	if x.stream {
		return x.tryStream(rm, r)
	}
	conn, reused, err := r.pool.Get(ctx, time.Now(), x.rested())
	if err != nil {
		return x.unconnected(rm, r, err)
	}
	x.count(reused)
	conn.Begin(time.Now(), upstream.Limits{Silence: settings.IdleTimeout, End: x.end})
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

// count notes whether a connection was open already.
func (x *exchange) count(reused bool) {
	if reused {
		x.in.count(x.client).reused.Add(1)
	} else {
		x.in.count(x.client).dialled.Add(1)
	}
}

// talk carries the exchange over conn. Clean says whether conn may carry another one; an error, that there is no whole
// response.
func (x *exchange) talk(conn *upstream.Conn) (v verdict, clean bool, err error) {
	if err := x.send(conn); err != nil {
		return over, false, err
	}
	h := x.w.Header()
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
	x.guard()
	x.commit(head.Status)
	if err := x.receive(conn); err != nil {
		return over, false, err
	}
	x.trail(conn.Trailer())
	return over, x.body.sentOn(conn) && conn.Reusable(), nil
}

// answered notes that the response has begun.
func (x *exchange) answered() {
	x.rec.FirstByte = time.Since(x.rec.Start)
	x.body.settle()
}

// trail has the server send what followed the body.
func (x *exchange) trail(trailer http.Header) {
	h := x.w.Header()
	for name, values := range trailer {
		h[http.TrailerPrefix+name] = values
	}
}

// interim passes on a response before the response. A 100 is for the body's sender: the server has its own for
// the client, sent when the body is first read.
func (x *exchange) interim(status int, h http.Header) {
	switch {
	case status == http.StatusContinue:
		x.body.proceed()
	case x.r.ProtoAtLeast(1, 1):
		x.guard()
		if x.r.ProtoMajor > 1 {
			// When the stream is reset, WriteHeader returns while net/http may be writing h elsewhere. Of a header with this
			// field it takes a copy first, and leaves the field out.
			h["Content-Length"] = nil
		}
		x.w.WriteHeader(status)
	}
	clear(h)
}

// errWrite wraps what kept bytes from the client.
type errWrite struct{ error }

// response is a body that comes.
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
					conn.Forget() // net/http may be about to write p when its stream was reset
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

// takeAnswer is how long a client may take for an answer of the ingress's own, before it has an app's settings.
const takeAnswer = time.Minute

// staleGuard is how near a deadline that an earlier request left on the connection may be for it to be lifted.
const staleGuard = 30 * time.Second

// guard moves the time by which the client must have taken what is written. It is moved in large steps, as that is
// cheaper; a client that takes nothing is ended after three quarters to the whole of the idle timeout.
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
	// It fails only where the connection is gone, which the write says better.
	if x.r.ProtoMajor > 1 {
		_ = http.NewResponseController(x.w).SetWriteDeadline(*until)
	} else {
		_ = x.client.conn.SetWriteDeadline(*until)
	}
}
