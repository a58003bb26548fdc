package ingress

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"penstock/internal/ingress/upstream"
)

// tryStream sends the request to r over HTTP/2 and passes its response on.
func (x *exchange) tryStream(rm *guardedRoom, r *replica) verdict {
	stream, reused, err := r.pool.Open(x.r.Context(), x.fresh)
	if err != nil {
		return x.unconnected(rm, r, err)
	}
	x.count(reused)
	stream.Begin(x.r.Context(), time.Now(), upstream.Limits{Silence: x.ticket.settings.IdleTimeout, End: x.end})
	defer stream.Close()
	if err := x.talkStream(stream); err != nil {
		return x.broken(rm, r, stream, reused, err)
	}
	return over
}

// talkStream sends the request over the stream and passes on the response. An error means that the response is not complete.
func (x *exchange) talkStream(stream *upstream.Stream) error {
	x.startUpload()
	out := x.streamRequest()
	switch {
	case x.body != nil:
		stream.Piped(out)
		x.body.use(stream)
	case x.read:
		x.lent = true
		out.Body = io.NopCloser(bytes.NewReader(x.small))
	}
	h := x.header()
	status, err := stream.RoundTrip(out, h, x.interim)
	if err != nil {
		return err
	}
	x.answered()
	if x.events {
		_, err := x.join(stream, status, h)
		return err
	}
	x.sayHeld(h)
	x.guard()
	x.commit(status)
	if err := x.receive(stream); err != nil {
		return err
	}
	x.trail(stream.Trailer())
	return nil
}

// streamRequest returns the request that is sent to the replica over HTTP/2. It shares no slices with the client's request,
// as the library may still read it after the exchange, when those are used again.
func (x *exchange) streamRequest() *http.Request {
	r := x.r
	out := &http.Request{
		Method: r.Method, Host: r.Host, ContentLength: r.ContentLength, Header: make(http.Header, len(r.Header)+4),
		URL: &url.URL{Scheme: "http", Host: r.Host},
	}
	if target := r.RequestURI; strings.HasPrefix(target, "/") && !strings.HasPrefix(target, "//") || target == "*" {
		out.URL.Opaque = target // to the letter
	} else {
		out.URL.Path, out.URL.RawPath, out.URL.RawQuery, out.URL.ForceQuery = r.URL.Path, r.URL.RawPath, r.URL.RawQuery, r.URL.ForceQuery
	}
	named := r.Header["Connection"]
	all := make([]string, 0, fields(r.Header))
	for name, values := range r.Header {
		if !x.own(name) && (len(named) == 0 || !listed(named, name)) {
			n := len(all)
			all = append(all, values...)
			out.Header[name] = all[n:len(all):len(all)]
		}
	}
	if out.Header["User-Agent"] == nil {
		out.Header["User-Agent"] = []string{""} // otherwise the library would send its own
	}
	if x.body != nil {
		if x.body.expects {
			out.Header["Expect"] = []string{"100-continue"}
		}
		if len(x.body.named) > 0 {
			out.Trailer = make(http.Header, len(x.body.named))
			for _, name := range x.body.named {
				out.Trailer[name] = nil
			}
		}
	}
	if listed(r.Header["Te"], "trailers") {
		out.Header["Te"] = []string{"trailers"}
	}
	out.Header["X-Forwarded-For"] = []string{x.rec.Forwarded}
	out.Header["X-Forwarded-Proto"] = []string{x.scheme}
	out.Header["X-Forwarded-Host"] = []string{r.Host}
	out.Header["X-Request-Id"] = []string{x.requestID()}
	out.Header[hopsField] = []string{x.hops}
	if x.certificate != "" {
		out.Header["X-Forwarded-Client-Cert"] = []string{x.certificate}
	}
	return out
}
