package front

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"penstock/internal/ingress/http1"
)

// refusal is the error response to bytes that are no valid request. The connection ends after it.
type refusal struct {
	status int
	text   string
}

func (r *refusal) Error() string { return r.text }

func malformed(format string, args ...any) error {
	return &refusal{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// exchange is one request and its response. It is reused, by other connections too.
type exchange struct {
	conn     *conn
	request  http.Request
	url      url.URL     // of the request, if its target is simple
	header   http.Header // of the request, and values, what is in it
	values   []string
	body     requestBody
	response response
	close    bool // the client wants the connection to end, or framing does
}

func newExchange() *exchange {
	t := &exchange{header: http.Header{}}
	t.response.header = http.Header{}
	return t
}

// begin parses text, a head with the given number of lines, as the request of c.
func (t *exchange) begin(c *conn, text string, lines int) error {
	t.conn = c
	t.request = *c.blank
	t.request.Header = t.header
	t.body.exchange, t.response.exchange = t, t
	if cap(t.values) < lines {
		t.values = make([]string, 0, lines)
	}
	line, rest := http1.NextLine(text)
	if err := t.parseLine(line); err != nil {
		return err
	}
	var host int
	for {
		if line, rest = http1.NextLine(rest); line == "" {
			break
		}
		name, value, err := http1.ParseField(line)
		if err != nil {
			return malformed("%v", err)
		}
		if name == "Host" {
			if host++; t.request.Host == "" { // otherwise the target has one
				t.request.Host = value
			}
			if !hostChars(value) {
				return malformed("host %.60q has a character that a host cannot have", value)
			}
			continue
		}
		http1.Add(t.header, &t.values, name, value)
	}
	switch {
	case host > 1:
		return malformed("more than one host")
	case host == 0 && t.request.ProtoAtLeast(1, 1):
		return malformed("no host")
	}
	return t.frame()
}

// parseLine reads "GET /path HTTP/1.1" (RFC 9112 section 3).
func (t *exchange) parseLine(line string) error {
	r := &t.request
	method, rest, _ := strings.Cut(line, " ")
	target, proto, ok := strings.Cut(rest, " ")
	if !ok || !http1.Token(method) || strings.IndexByte(proto, ' ') >= 0 {
		return malformed("request line %.60q, want METHOD TARGET HTTP/1.1", line)
	}
	r.Method, r.RequestURI, r.Proto = method, target, proto
	if len(proto) != len("HTTP/1.1") || proto[:5] != "HTTP/" || !digit(proto[5]) || proto[6] != '.' || !digit(proto[7]) {
		return malformed("protocol %.20q, want HTTP/1.1", proto)
	}
	if r.ProtoMajor, r.ProtoMinor = int(proto[5]-'0'), int(proto[7]-'0'); r.ProtoMajor != 1 {
		return &refusal{http.StatusHTTPVersionNotSupported, "want HTTP/1.1, got " + proto}
	}
	return t.parseTarget()
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

func (t *exchange) parseTarget() (err error) {
	r := &t.request
	target := r.RequestURI
	for i := range len(target) {
		if target[i] <= ' ' || target[i] == 0x7f {
			return malformed("a control character in the target %.60q", target)
		}
	}
	switch {
	case target == "":
		return malformed("no target")
	case r.Method == http.MethodConnect:
		if r.URL, err = url.ParseRequestURI("http://" + target); err != nil || r.URL.Host != target {
			return malformed("target %.60q, want HOST:PORT", target)
		}
		r.Host = target
	case target == "*" && r.Method == http.MethodOptions:
		r.URL = &url.URL{Path: target}
	case target[0] == '/' && simple(target):
		path, query, _ := strings.Cut(target, "?")
		t.url = url.URL{Path: path, RawQuery: query, ForceQuery: query == "" && len(path) < len(target)}
		r.URL = &t.url
	case target[0] == '/':
		if r.URL, err = url.ParseRequestURI(target); err != nil {
			return malformed("target %.60q: %v", target, reason(err))
		}
	default:
		if r.URL, err = url.ParseRequestURI(target); err != nil {
			return malformed("target %.60q: %v", target, reason(err))
		}
		if r.URL.Scheme != "http" && r.URL.Scheme != "https" || r.URL.Host == "" {
			return malformed("target %.60q, want a path, or a URL of http", target)
		}
		r.Host = r.URL.Host // RFC 9112 section 3.2.2
	}
	return nil
}

// simple says whether parsing would leave a path and its query as they are.
func simple(target string) bool {
	if strings.HasPrefix(target, "//") {
		return false
	}
	for i := range len(target) {
		if c := target[i]; c == '%' || c == '#' || c >= 0x80 {
			return false
		}
	}
	return true
}

// reason returns what is wrong with a URL, without the URL itself.
func reason(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// hostChars says whether s has only what a host and a port may have (RFC 3986 section 3.2.2).
func hostChars(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !digit(c) && !('a' <= c|0x20 && c|0x20 <= 'z') && strings.IndexByte("-._~!$&'()*+,;=:[]%", c) < 0 {
			return false
		}
	}
	return true
}

// frame determines how the body is framed (RFC 9112 section 6.3), and whether the client wants to keep the connection.
func (t *exchange) frame() error {
	r := &t.request
	keepAlive := false
	for _, list := range t.header["Connection"] {
		for word := range strings.SplitSeq(list, ",") {
			switch word = strings.Trim(word, " \t"); {
			case strings.EqualFold(word, "close"):
				t.close = true
			case strings.EqualFold(word, "keep-alive"):
				keepAlive = true
			}
		}
	}
	if r.ProtoMinor == 0 && !keepAlive {
		t.close = true
	}
	codings, lengths := t.header["Transfer-Encoding"], t.header["Content-Length"]
	switch {
	case codings != nil && (len(codings) != 1 || !strings.EqualFold(codings[0], "chunked")):
		return &refusal{http.StatusNotImplemented, fmt.Sprintf("transfer-encoding %.60q, want chunked alone", strings.Join(codings, ", "))}
	case codings != nil && lengths != nil:
		return malformed("a transfer-encoding beside a content-length")
	case codings != nil && r.ProtoMinor == 0:
		return malformed("a transfer-encoding in HTTP/1.0")
	case codings != nil:
		r.ContentLength = -1
		t.body.framed = http1.Chunked()
		delete(t.header, "Transfer-Encoding")
		r.TransferEncoding = chunkedCoding
		t.announce()
	case lengths != nil:
		n, err := http1.ParseLength(lengths[0])
		if err != nil {
			return malformed("%v", err)
		}
		for _, other := range lengths[1:] {
			if other != lengths[0] {
				return malformed("lengths that differ: %.60q", strings.Join(lengths, ", "))
			}
		}
		r.ContentLength = n
		t.body.framed = http1.ByLength(n)
	}
	if t.body.framed.Empty() {
		r.Body = http.NoBody
	} else {
		r.Body = &t.body
	}
	return t.expect()
}

var chunkedCoding = []string{"chunked"}

// announce sets the request's Trailer to the fields that the head names, as handlers expect.
func (t *exchange) announce() {
	for _, list := range t.header["Trailer"] {
		for name := range strings.SplitSeq(list, ",") {
			name = http.CanonicalHeaderKey(strings.Trim(name, " \t"))
			if http1.Token(name) && !http1.ForbiddenInTrailer(name) {
				if t.request.Trailer == nil {
					t.request.Trailer = http.Header{}
				}
				t.request.Trailer[name] = nil
			}
		}
	}
	delete(t.header, "Trailer")
}

// expect handles the Expect field.
func (t *exchange) expect() error {
	r := &t.request
	want := r.Header["Expect"]
	if want == nil || r.ProtoMinor == 0 {
		return nil
	}
	if len(want) != 1 || !strings.EqualFold(want[0], "100-continue") {
		return &refusal{http.StatusExpectationFailed, fmt.Sprintf("expectation %.60q, want 100-continue", strings.Join(want, ", "))}
	}
	t.body.expected = r.Body != http.NoBody
	return nil
}

// serve handles the request, and says whether the connection can be kept.
func (t *exchange) serve() (more bool) {
	c, w := t.conn, &t.response
	if t.body.framed.Empty() {
		c.drop()
	}
	c.leaveDeadline()
	whole := c.call(t)
	if c.away {
		return false
	}
	if whole {
		whole = w.finish()
	}
	w.release()
	if !whole {
		return false
	}
	rest := !t.body.framed.Empty() && !t.body.framed.Done()
	if rest && !t.close && !t.body.expected {
		rest = !t.body.discard()
		t.close = t.close || rest
	}
	if t.close || rest {
		if rest || c.r < c.w {
			c.linger()
		}
		return false
	}
	return true
}

// end makes the exchange ready for another request.
func (t *exchange) end() {
	clear(t.header)
	clear(t.values[:cap(t.values)])
	h := t.response.header
	clear(h)
	*t = exchange{header: t.header, values: t.values[:0], response: response{header: h}}
}
