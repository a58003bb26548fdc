package ingress

import (
	"context"
	"errors"
	"net/http"
	"syscall"
	"time"

	"penstock/internal/accesslog"
	"penstock/internal/ingress/upstream"
	"penstock/internal/resource"
)

// unreachable answers that no replica has accepted a connection.
func (x *exchange) unreachable() verdict {
	x.answerReset(http.StatusServiceUnavailable, 0, x.reason)
	return over
}

// briefRest is how long a connection may have been idle to be used for a request that must not be sent twice. Servers
// close idle connections after 2 s (gunicorn), 5 s (Apache, Node, uvicorn) or more. If the server closes the connection
// while the request is on its way, nobody can say whether the request was taken; on a recently used one that does not happen.
const briefRest = time.Second

// rested returns how long a connection may have been idle to be used for this request.
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

// unconnected decides what follows when r accepted no connection. Nothing was sent, so another replica is always tried.
func (x *exchange) unconnected(rm *guardedRoom, r *replica, err error) verdict {
	if ctx := x.r.Context(); ctx.Err() != nil {
		return x.left(context.Cause(ctx))
	}
	x.rec.Flags |= accesslog.FlagConnectFailure
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

// elsewhere makes the next try use another replica, as long as there is one.
func (x *exchange) elsewhere(rm *guardedRoom, r *replica) verdict {
	now := time.Now()
	if !x.end.IsZero() && now.After(x.end) {
		x.answer(http.StatusGatewayTimeout, accesslog.FlagUpstreamTimeout, textTimeout)
		return over
	}
	rm.shun(&x.ticket, r, now)
	return again
}

// tried is a connection, or a stream of one, on which a request failed.
type tried interface {
	// Untaken says whether the replica provably received nothing of the request, or did nothing with it.
	Untaken(err error) bool
	// Heard says whether a byte of the response came.
	Heard() bool
}

// broken decides what follows after an exchange over conn failed.
func (x *exchange) broken(rm *guardedRoom, r *replica, conn tried, reused bool, err error) verdict {
	if bad := x.body.failed(); bad != nil {
		return x.badBody(bad)
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
		// If the connection ended before any byte of the response, the client could take it for one that was closed while
		// idle, and send the request again. If flushing fails, the client has left.
		_ = http.NewResponseController(x.w).Flush()
		return cut
	}
	switch flag := flagOf(err); flag {
	case accesslog.FlagUpstreamTimeout:
		x.answer(http.StatusGatewayTimeout, flag, textTimeout)
		return over
	case accesslog.FlagStreamIdle:
		status := http.StatusGatewayTimeout
		if x.body != nil && x.body.reading.Load() {
			status = http.StatusRequestTimeout // the client is silent, not the replica
		}
		x.answer(status, flag, textSilent)
		return over
	case accesslog.FlagUpstreamProtocol:
		x.in.cfg.Log.Warn("a replica's response was refused", "replica", r.Name, "err", err)
		x.answerReset(http.StatusBadGateway, flag, reasonProtocol)
		return over
	}
	x.reason = reasonTerminated
	replay := x.body.replayable()
	switch {
	case replay && conn.Untaken(err) && reused:
		// The idle connection had ended; the replica may be fine.
		x.fresh = true
		return again
	case replay && conn.Untaken(err):
		x.rec.Flags |= accesslog.FlagUpstreamTermination
		return x.elsewhere(rm, r)
	case replay && !conn.Heard() && !x.resent && mayResend(x.r.Method, x.ticket.settings.Retry):
		x.resent, x.fresh = true, true
		x.rec.Flags |= accesslog.FlagUpstreamTermination
		return x.elsewhere(rm, r)
	}
	x.answerReset(http.StatusServiceUnavailable, accesslog.FlagUpstreamTermination, reasonTerminated)
	return over
}

func flagOf(err error) accesslog.Flags {
	switch {
	case errors.Is(err, upstream.ErrTooLong):
		return accesslog.FlagUpstreamTimeout
	case errors.Is(err, upstream.ErrSilent):
		return accesslog.FlagStreamIdle
	case errors.Is(err, upstream.ErrProtocol):
		return accesslog.FlagUpstreamProtocol
	default:
		return accesslog.FlagUpstreamTermination
	}
}

// mayResend says whether a request may be sent to another replica after one took it and sent no byte back.
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
