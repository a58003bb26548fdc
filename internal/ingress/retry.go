package ingress

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"syscall"
	"time"

	"penstock/internal/access"
	"penstock/internal/ingress/upstream"
	"penstock/internal/resource"
)

// refusedFor is how long an app that accepts no connection is tried before the answer is 503; Azure's ingress was
// measured to answer after 0.25 to 0.5 s. A replica that has just died leaves the table well within it.
const refusedFor = 500 * time.Millisecond

// shun notes that r did not accept a connection for the ticket.
func (t *ticket) shun(rm *room, r *replica, now time.Time) {
	if t.shuns.IsZero() {
		t.shuns = now
	}
	rm.shun(r, now)
	if !slices.Contains(t.tried, r) {
		t.tried = append(t.tried, r)
	}
}

// rest lets some time go before replicas are tried again, all of which did not accept a connection. Spent says instead
// that they have been tried for long enough.
func (t *ticket) rest(ctx context.Context) (spent bool, err error) {
	if time.Since(t.shuns) >= refusedFor {
		return true, nil
	}
	t.tried = t.tried[:0]
	wait := time.NewTimer(min(10*time.Millisecond<<t.rests, 100*time.Millisecond))
	defer wait.Stop()
	t.rests++
	select {
	case <-wait.C:
		return false, nil
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
}

// pause comes before another round of tries, or gives up.
func (x *exchange) pause() verdict {
	spent, err := x.ticket.rest(x.r.Context())
	switch {
	case spent:
		x.answerReset(http.StatusServiceUnavailable, 0, x.reason)
		return over
	case err != nil:
		return x.left(err)
	}
	return again
}

// briefRest is how old an idle connection may be for a request that must not be sent twice. Servers close idle ones
// after 2 s (gunicorn), 5 s (Apache, Node, uvicorn) or more; on one that was used just now, such a request does not meet
// the end of the connection halfway, when nobody could say whether it was taken.
const briefRest = time.Second

// rested is how old an idle connection may be for this request.
func (x *exchange) rested() time.Duration {
	switch {
	case x.fresh:
		return 0
	case mayResend(x.r.Method, x.ticket.settings.Retry):
		return upstream.MaxRest
	default:
		return briefRest
	}
}

// unconnected decides what follows when r took no connection. Nothing was sent, so it is always tried elsewhere.
func (x *exchange) unconnected(rm *room, r *replica, err error) verdict {
	if ctx := x.r.Context(); ctx.Err() != nil {
		return x.left(context.Cause(ctx))
	}
	x.rec.Flags |= access.FlagConnectFailure
	x.reason = reasonRefused + "Connection refused"
	if errno, ok := errors.AsType[syscall.Errno](err); ok && errno != syscall.ECONNREFUSED {
		x.reason = reasonRefused + errno.Error()
	} else if bad, secure := errors.AsType[*upstream.TLSError](err); !ok && secure {
		x.reason = reasonTLS + bad.Err.Error()
	} else if !ok {
		x.reason = reasonTimeout
	}
	return x.elsewhere(rm, r)
}

// elsewhere has the next try made with another replica, as long as there is one.
func (x *exchange) elsewhere(rm *room, r *replica) verdict {
	now := time.Now()
	if !x.end.IsZero() && now.After(x.end) {
		x.answer(http.StatusGatewayTimeout, access.FlagUpstreamTimeout, textTimeout)
		return over
	}
	x.ticket.shun(rm, r, now)
	return again
}

// tried is what a connection, or a stream of one, knows of a request that failed on it.
type tried interface {
	// Untaken says whether the replica provably got nothing of it, or did nothing with it.
	Untaken(err error) bool
	// Heard says whether a byte of the response came.
	Heard() bool
}

// broken decides what follows when an exchange over conn failed.
func (x *exchange) broken(rm *room, r *replica, conn tried, reused bool, err error) verdict {
	if bad := x.body.failed(); bad != nil {
		return x.badBody(bad)
	}
	if bad, ok := errors.AsType[errBody](err); ok {
		return x.badBody(bad.error)
	}
	if ctx := x.r.Context(); ctx.Err() != nil {
		return x.left(context.Cause(ctx))
	}
	if write, ok := errors.AsType[errWrite](err); ok {
		return x.left(write)
	}
	if x.committed {
		x.rec.Flags |= flagOf(err)
		if x.r.ProtoMajor == 2 && isGRPC(x.w.Header()) {
			x.endGRPC(textReset + reasonTerminated)
			return over
		}
		// A connection that ends without a word would look to the client like one that was closed while idle, after
		// which it may send the request again. Where flushing fails the client has gone.
		_ = http.NewResponseController(x.w).Flush()
		return cut
	}
	switch flag := flagOf(err); flag {
	case access.FlagUpstreamTimeout:
		x.answer(http.StatusGatewayTimeout, flag, textTimeout)
		return over
	case access.FlagStreamIdle:
		status := http.StatusGatewayTimeout
		if x.body != nil && x.body.reading.Load() {
			status = http.StatusRequestTimeout // it is the client that says nothing
		}
		x.answer(status, flag, textSilent)
		return over
	case access.FlagUpstreamProtocol:
		x.in.cfg.Log.Warn("a replica's response was refused", "replica", r.name, "err", err)
		x.answerReset(http.StatusBadGateway, flag, reasonProtocol)
		return over
	}
	x.reason = reasonTerminated
	replay := x.body.replayable()
	switch {
	case replay && conn.Untaken(err) && reused:
		// It was the connection's end, not the replica's.
		x.fresh = true
		return again
	case replay && conn.Untaken(err):
		x.rec.Flags |= access.FlagUpstreamTermination
		return x.elsewhere(rm, r)
	case replay && !conn.Heard() && !x.resent && mayResend(x.r.Method, x.ticket.settings.Retry):
		x.resent, x.fresh = true, true
		x.rec.Flags |= access.FlagUpstreamTermination
		return x.elsewhere(rm, r)
	}
	x.answerReset(http.StatusServiceUnavailable, access.FlagUpstreamTermination, reasonTerminated)
	return over
}

func flagOf(err error) access.Flags {
	switch {
	case errors.Is(err, upstream.ErrTooLong):
		return access.FlagUpstreamTimeout
	case errors.Is(err, upstream.ErrSilent):
		return access.FlagStreamIdle
	case errors.Is(err, upstream.ErrProtocol):
		return access.FlagUpstreamProtocol
	default:
		return access.FlagUpstreamTermination
	}
}

// mayResend says whether a request that a replica took, and gave no byte back for, may be sent to another.
func mayResend(method string, retry resource.Retry) bool {
	switch retry {
	case resource.RetryAll:
		return true
	case resource.RetryNone:
		return false
	}
	switch method { // RFC 9110 section 9.2.2
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}
