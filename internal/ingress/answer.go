package ingress

import (
	"fmt"
	"net/http"
	"strconv"

	"penstock/internal/accesslog"
	"penstock/internal/ingress/front"
	"penstock/internal/ingress/room"
)

// unavailable is the page that Azure's ingress shows for a host that belongs to no running app. Programs look for its title
// and text.
const unavailable = `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Azure Container App - Unavailable</title>
<style>body{font-family:sans-serif;max-width:40em;margin:15vh auto;padding:0 1em;color:#222}small{color:#666}</style>
</head>
<body>
<h1>Error 404 - This Container App is stopped or does not exist.</h1>
<p>The name in the address is not that of an app with ingress, or the app does not answer from where you are.</p>
<p><small>Answered by Penstock's ingress. <code>penstock app list</code> shows which apps there are.</small></p>
</body>
</html>
`

// Envoy's texts, which Azure's clients know.
const (
	textReset   = "upstream connect error or disconnect/reset before headers. "
	textRetried = "retried and the latest "
	textTimeout = "upstream request timeout"
	textSilent  = "stream timeout"
	textDenied  = "RBAC: access denied"

	textCertificate = "this container app requires a client certificate"

	reasonRefused    = "reset reason: remote connection failure, transport failure reason: delayed connect error: "
	reasonTLS        = "reset reason: remote connection failure, transport failure reason: TLS_error: "
	reasonTimeout    = "reset reason: connection timeout"
	reasonTerminated = "reset reason: connection termination"
	reasonProtocol   = "reset reason: protocol error"
)

// answer ends the request with an error of the ingress.
func (x *exchange) answer(status int, flag accesslog.Flags, text string) {
	x.rec.Flags |= flag
	x.plain(status, "text/plain", text)
}

func (x *exchange) plain(status int, kind, text string) {
	if x.events {
		_ = x.fail(errorDetails{Status: status, Message: text}) // a client that has gone needs no answer
		x.in.count(x.client).refused.Add(1)
		return
	}
	h := x.w.Header()
	clear(h)
	x.guardFor(takeAnswer)
	if isGRPC(x.r.Header) {
		x.answerGRPC(status, text)
		x.in.count(x.client).refused.Add(1)
		return
	}
	h.Set("Content-Type", kind)
	h.Set("Content-Length", strconv.Itoa(len(text)))
	x.commit(status)
	if x.r.Method != http.MethodHead {
		n, _ := x.w.Write([]byte(text)) // a client that has gone needs no answer
		x.rec.BytesOut += int64(n)
	}
	x.in.count(x.client).refused.Add(1)
}

func (x *exchange) answerNoRoute() {
	if isGRPC(x.r.Header) || x.events {
		x.answer(http.StatusNotFound, accesslog.FlagNoRoute, "this container app is stopped or does not exist")
		return
	}
	x.rec.Flags |= accesslog.FlagNoRoute
	x.plain(http.StatusNotFound, "text/html; charset=utf-8", unavailable)
}

// refuse answers a request that got no place.
func (x *exchange) refuse(rm *guardedRoom, why *room.Refusal) verdict {
	flag, text, busy := rm.explain(why)
	if busy {
		x.retryAfter = "1"
	}
	x.answer(http.StatusServiceUnavailable, flag, text)
	return over
}

// answerReset answers a request whose replica sent no response.
func (x *exchange) answerReset(status int, flag accesslog.Flags, reason string) {
	text := textReset
	if x.rec.Attempts > 1 {
		text += textRetried
	}
	x.answer(status, flag, text+reason)
}

// redirect sends the client from http to https, with the status of Envoy's https_redirect.
func (x *exchange) redirect() {
	if x.events { // by a route that is new
		x.answer(http.StatusMovedPermanently, 0, "the app is reached by https only")
		return
	}
	to := "https://" + x.rec.Host
	// A gateway has https at its own port.
	if port := x.in.cfg.HTTPSPort; port != 443 && x.in.table.Load().neighbourhood(x.client.addr) == nil {
		to += fmt.Sprintf(":%d", port)
	}
	x.guardFor(takeAnswer)
	h := x.w.Header()
	h.Set("Location", to+x.r.URL.RequestURI())
	h.Set("Content-Length", "0")
	x.commit(http.StatusMovedPermanently)
}

// commit sends the head of the response.
func (x *exchange) commit(status int) {
	h := x.w.Header()
	untouched := x.body == nil && !x.read && x.r.ContentLength > front.DiscardBytes
	if x.in.life.draining.Load() || x.r.ProtoMajor == 1 && (untouched || x.body.unread()) {
		// The client need not send the rest of a body that nobody reads.
		h.Set("Connection", "close")
	}
	if x.retryAfter != "" {
		h.Set("Retry-After", x.retryAfter)
	}
	if h["Content-Type"] == nil {
		h["Content-Type"] = nil // otherwise net/http would guess one, for HTTP/2
	}
	x.mark(h)
	x.rec.Status = status
	x.committed = true
	x.w.WriteHeader(status)
}
