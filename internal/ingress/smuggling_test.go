package ingress_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"penstock/internal/ingress"
)

// wire is a replica that keeps every byte it is sent and answers each request that net/http reads of them.
type wire struct {
	mu    sync.Mutex
	conns []*heard
	addr  string
}

// heard is what came by one connection.
type heard struct {
	wire  *wire
	bytes bytes.Buffer
	told  int // requests that were asked for
}

func newWire(t testing.TB) *wire {
	w := new(wire)
	w.addr = raw(t, func(conn net.Conn, r *bufio.Reader) {
		h := &heard{wire: w}
		w.mu.Lock()
		w.conns = append(w.conns, h)
		w.mu.Unlock()
		in := bufio.NewReader(io.TeeReader(r, h))
		for {
			req, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				return
			}
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	return w
}

func (h *heard) Write(p []byte) (int, error) {
	h.wire.mu.Lock()
	defer h.wire.mu.Unlock()
	return h.bytes.Write(p)
}

// take returns the requests that came since the last call. What was broken off may still be on its way, which is why
// each connection is read for itself.
func (w *wire) take(t *testing.T) (all []string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range w.conns {
		got := requests(t, h.bytes.String())
		all = append(all, got[h.told:]...)
		h.told = len(got)
	}
	return all
}

// requests reads a replica's bytes as strictly as can be: each request ends where its one length or its chunks say.
func requests(t *testing.T, text string) (all []string) {
	t.Helper()
	for text != "" {
		head, rest, ok := strings.Cut(text, "\r\n\r\n")
		if first, _, _ := strings.Cut(head, "\r\n"); ok && strings.Count(first, " ") != 2 {
			t.Fatalf("the replica got the request line %q", first)
		}
		if !ok {
			return all // broken off, with nothing behind it
		}
		lines := strings.Split(head, "\r\n")
		length, chunked := -1, false
		for _, line := range lines[1:] {
			name, value, ok := strings.Cut(line, ": ")
			if !ok || strings.ContainsAny(line, "\r\n\x00") || strings.ContainsAny(name, " \t") {
				t.Fatalf("the replica got the field %q", line)
			}
			switch {
			case strings.EqualFold(name, "Content-Length") && length < 0:
				if _, err := fmt.Sscanf(value, "%d", &length); err != nil || fmt.Sprint(length) != value {
					t.Fatalf("the replica got the length %q", value)
				}
			case strings.EqualFold(name, "Transfer-Encoding") && value == "chunked" && !chunked:
				chunked = true
			case strings.EqualFold(name, "Content-Length"), strings.EqualFold(name, "Transfer-Encoding"):
				t.Fatalf("the replica got the field %q twice or in another form: %q", name, head)
			}
		}
		body := ""
		switch {
		case chunked && length >= 0:
			t.Fatalf("the replica got a length beside chunks: %q", head)
		case chunked:
			if body, rest, ok = chunks(t, rest); !ok {
				return all // broken off, with nothing behind it
			}
		case length > 0:
			if len(rest) < length {
				return all
			}
			body, rest = rest[:length], rest[length:]
		}
		method, target, _ := strings.Cut(lines[0], " ")
		all = append(all, method+" "+strings.TrimSuffix(target, " HTTP/1.1")+" "+body)
		text = rest
	}
	return all
}

func chunks(t *testing.T, text string) (body, rest string, whole bool) {
	t.Helper()
	for {
		if text == "" {
			return "", "", false
		}
		line, after, ok := strings.Cut(text, "\r\n")
		n := 0
		if !ok {
			return "", "", false
		}
		if line == "0" {
			trailer, rest, ok := strings.Cut("\r\n"+after, "\r\n\r\n")
			for field := range strings.SplitSeq(trailer, "\r\n") {
				name, _, named := strings.Cut(field, ": ")
				if field != "" && (!named || strings.EqualFold(name, "Content-Length") || strings.EqualFold(name, "Transfer-Encoding") || strings.EqualFold(name, "Host")) {
					t.Fatalf("the replica got the trailer %q", field)
				}
			}
			return body, rest, ok
		}
		if _, err := fmt.Sscanf(line, "%x", &n); err == nil && len(after) < n+2 {
			return "", "", false
		} else if err != nil || fmt.Sprintf("%x", n) != line || after[n:n+2] != "\r\n" {
			t.Fatalf("the replica got a chunk %.60q", text)
		}
		body, text = body+after[:n], after[n+2:]
	}
}

// What a client sends is one reading to everybody: refused, or the same request to the replica whose raw bytes are
// read here by rules of their own (RFC 9112 sections 2.2, 5, 6, 7; RFC 9110 section 7.6).
func TestNoRequestIsSmuggled(t *testing.T) {
	const evil = "GET /evil HTTP/1.1\r\nHost: app.test\r\n\r\n"
	post := func(fields, body string) string {
		return "POST /a HTTP/1.1\r\nHost: app.test\r\n" + fields + "\r\n" + body
	}
	chunked := func(body string) string { return post("Transfer-Encoding: chunked\r\n", body) }
	tests := map[string]struct {
		request string
		reaches []string // the replica, before /next
		status  string   // of the first answer
	}{
		"a coding beside a length":             {post("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "2\r\nab\r\n0\r\n\r\n"), nil, "400"},
		"a length beside a coding":             {post("Transfer-Encoding: chunked\r\nContent-Length: 100\r\n", "2\r\nab\r\n0\r\n\r\n"), nil, "400"},
		"coding in other letters":              {post("Transfer-Encoding: ChunKed\r\n", "2\r\nab\r\n0\r\n\r\n"), []string{"POST /a ab"}, "200"},
		"coding that is none":                  {post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"+evil), nil, "501"},
		"coding with a tab before it":          {post("Transfer-Encoding:\tchunked\r\n", "2\r\nab\r\n0\r\n\r\n"), []string{"POST /a ab"}, "200"},
		"coding with a vertical tab":           {post("Transfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n"+evil), nil, "4"},
		"coding twice":                         {post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"+evil), nil, "501"},
		"coding, then identity":                {post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "0\r\n\r\n"+evil), nil, "501"},
		"a list of codings":                    {post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"+evil), nil, "501"},
		"identity":                             {post("Transfer-Encoding: identity\r\nContent-Length: 2\r\n", "ab"+evil), nil, "501"},
		"an empty coding":                      {post("Transfer-Encoding:\r\nContent-Length: 2\r\n", "ab"+evil), nil, "501"},
		"coding with a space before the colon": {post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"+evil), nil, "400"},
		"coding in HTTP/1.0":                   {"POST /a HTTP/1.0\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n" + evil, nil, "400"},
		"a folded coding":                      {post("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n"), nil, "400"},
		"a field that is folded":               {"GET /a HTTP/1.1\r\nHost: app.test\r\nX-A: b\r\n Content-Length: 40\r\n\r\n", nil, "400"},
		"the first field folded":               {"GET /a HTTP/1.1\r\n Host: evil.test\r\nHost: app.test\r\n\r\n", nil, "400"},
		"lengths that differ":                  {post("Content-Length: 2\r\nContent-Length: 50\r\n", "ab"+evil), nil, "400"},
		"lengths that agree":                   {post("Content-Length: 2\r\nContent-Length: 2\r\n", "ab"), []string{"POST /a ab"}, "200"},
		"a list of lengths":                    {post("Content-Length: 2, 2\r\n", "ab"+evil), nil, "400"},
		"a length with a sign":                 {post("Content-Length: +2\r\n", "ab"+evil), nil, "400"},
		"a negative length":                    {post("Content-Length: -2\r\n", "ab"+evil), nil, "400"},
		"a length in hexadecimal":              {post("Content-Length: 0x2\r\n", "ab"+evil), nil, "400"},
		"a length beyond 63 bits":              {post("Content-Length: 18446744073709551618\r\n", "ab"+evil), nil, "400"},
		"an empty length":                      {post("Content-Length:\r\n", "ab"+evil), nil, "400"},
		"a length that Connection names":       {post("Connection: Content-Length\r\nContent-Length: 2\r\n", "ab"), []string{"POST /a ab"}, "200"},
		"a coding that Connection names":       {post("Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n", "2\r\nab\r\n0\r\n\r\n"), []string{"POST /a ab"}, "200"},
		"a host that Connection names":         {"GET /a HTTP/1.1\r\nHost: app.test\r\nConnection: Host\r\n\r\n", []string{"GET /a "}, "200"},
		"a body of GET":                        {"GET /a HTTP/1.1\r\nHost: app.test\r\nContent-Length: " + fmt.Sprint(len(evil)) + "\r\n\r\n" + evil, []string{"GET /a " + evil}, "200"},
		"a body of HEAD in chunks":             {"DELETE /a HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n" + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(evil), evil), []string{"DELETE /a " + evil}, "200"},
		"lines that end in LF":                 {"GET /a HTTP/1.1\nHost: app.test\n\n", []string{"GET /a "}, "200"},
		"a lone CR in a value":                 {"GET /a HTTP/1.1\r\nHost: app.test\r\nX-A: b\rContent-Length: 40\r\n\r\n", nil, "400"},
		"a zero byte in a value":               {"GET /a HTTP/1.1\r\nHost: app.test\r\nX-A: b\x00\r\n\r\n", nil, "400"},
		"a name with a space":                  {"GET /a HTTP/1.1\r\nHost: app.test\r\nX A: b\r\n\r\n", nil, "400"},
		"a field without a colon":              {"GET /a HTTP/1.1\r\nHost: app.test\r\nContent-Length 40\r\n\r\n", nil, "400"},
		"a space in the target":                {"GET /a HTTP/1.1 HTTP/1.1\r\nHost: app.test\r\n\r\n", nil, "400"},
		"a control character in the target":    {"GET /a\x01b HTTP/1.1\r\nHost: app.test\r\n\r\n", nil, "400"},
		"a method with a line end":             {"GET\r/evil /a HTTP/1.1\r\nHost: app.test\r\n\r\n", nil, "400"},
		"two hosts":                            {"GET /a HTTP/1.1\r\nHost: app.test\r\nHost: evil.test\r\n\r\n", nil, "400"},
		"no host":                              {"GET /a HTTP/1.1\r\n\r\n", nil, "400"},
		"a host of another in the target":      {"GET http://app.test/a HTTP/1.1\r\nHost: evil.test\r\n\r\n", []string{"GET /a "}, "200"},
		"another version":                      {"GET /a HTTP/1.2\r\nHost: app.test\r\n\r\n", []string{"GET /a "}, "200"},
		"a version that is none":               {"GET /a HTTP/9.9\r\nHost: app.test\r\n\r\n", nil, "505"},
		"chunk extensions":                     {chunked("2;a=b;c=\"d\"\r\nab\r\n0;e\r\n\r\n"), []string{"POST /a ab"}, "200"},
		"a chunk extension with a lone LF":     {chunked("2;\nxx\r\nab\r\n0\r\n\r\n" + evil), nil, "400"},
		"a chunk size that ends in LF":         {chunked("2\nab\r\n0\r\n\r\n" + evil), nil, "400"},
		"a chunk that ends in LF":              {chunked("2\r\nab\n0\r\n\r\n" + evil), nil, "400"},
		"a chunk longer than it says":          {chunked("2\r\nabc\r\n0\r\n\r\n" + evil), nil, "400"},
		"a chunk size of 0x2":                  {chunked("0x2\r\nab\r\n0\r\n\r\n" + evil), nil, "400"},
		"a chunk size with a sign":             {chunked("+2\r\nab\r\n0\r\n\r\n" + evil), nil, "400"},
		"a chunk size beyond 64 bits":          {chunked("10000000000000002\r\nab\r\n0\r\n\r\n" + evil), nil, "400"},
		"a chunk size of nothing":              {chunked("\r\nab\r\n0\r\n\r\n" + evil), nil, "400"},
		"a trailer that would frame":           {chunked("2\r\nab\r\n0\r\nContent-Length: 50\r\nTransfer-Encoding: chunked\r\nHost: evil.test\r\n\r\n"), []string{"POST /a ab"}, "200"},
		"an upgrade to another protocol":       {"GET /a HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: tls/1.0\r\n\r\n", []string{"GET /a "}, "200"},
		"an upgrade to h2c":                    {"GET /a HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n", []string{"GET /a "}, "200"},
		"an upgrade to h2c with a body":        {post("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\nContent-Length: 2\r\n", "ab"), []string{"POST /a ab"}, "200"},
		"a WebSocket with a body":              {"GET /a HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nab", []string{"GET /a ab"}, "200"},
		"a WebSocket that the replica refuses": {"GET /a HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 777\r\n\r\n", []string{"GET /a "}, "200"},
		"the PROXY protocol":                   {"PROXY TCP4 192.0.2.1 192.0.2.2 1 80\r\nGET /a HTTP/1.1\r\nHost: app.test\r\n\r\n", nil, "400"},
		"the PROXY protocol in binary":         {"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0cabcdefghijkl" + evil, nil, "400"},
		"an expectation of something else":     {post("Expect: 200-ok\r\nContent-Length: 2\r\n", "ab"), nil, "417"},
		"half of HTTP/2's preface":             {"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n" + evil, nil, "4"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWire(t)
			f := serve(t, ingress.Config{})
			f.Apply(replicas(w.addr))
			conn, r := f.dial(t, test.request)
			line, _ := r.ReadString('\n')
			if _, code, _ := strings.Cut(line, " "); !strings.HasPrefix(code, test.status) {
				t.Errorf("got %q, want %s", line, test.status)
			}
			// What follows on the connection is not read as a request after one that was refused, and is a request of
			// its own after one that was not.
			io.WriteString(conn, "GET /next HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n")
			io.Copy(io.Discard, r)
			got := w.take(t)
			if test.status == "200" {
				test.reaches = append(test.reaches, "GET /next ")
			}
			if strings.Join(got, "|") != strings.Join(test.reaches, "|") {
				t.Errorf("the replica got %q, want %q", got, test.reaches)
			}
			f.get(t, "/other")
			if got := w.take(t); len(got) != 1 || got[0] != "GET /other " {
				t.Errorf("then the replica got %q, want the next client's request", got)
			}
		})
	}
}

// HTTP/2 can carry in a field what would be two lines of HTTP/1.1 (RFC 9113 sections 8.1.1, 8.2, 8.3, 10.3). None of it
// reaches a replica.
func TestNoHTTP2RequestIsSmuggled(t *testing.T) {
	type fields [][2]string
	get := fields{{":method", "GET"}, {":scheme", "http"}, {":authority", host}, {":path", "/a"}}
	with := func(base fields, more ...[2]string) fields { return append(append(fields(nil), base...), more...) }
	change := func(name, value string) fields {
		c := append(fields(nil), get...)
		for i := range c {
			if c[i][0] == name {
				c[i][1] = value
			}
		}
		return c
	}
	post := change(":method", "POST")
	tests := map[string]struct {
		fields  fields
		body    string
		reaches string // "": the stream or connection is reset, or answered with 4xx
	}{
		"a request":                         {get, "", "GET /a "},
		"a body":                            {post, "ab", "POST /a ab"},
		"a body of its length":              {with(post, [2]string{"content-length", "2"}), "ab", "POST /a ab"},
		"a body shorter than it says":       {with(post, [2]string{"content-length", "20"}), "ab", ""},
		"a body longer than it says":        {with(post, [2]string{"content-length", "1"}), "ab", ""},
		"lengths that differ":               {with(post, [2]string{"content-length", "2"}, [2]string{"content-length", "0"}), "ab", ""},
		"a length of another form":          {with(post, [2]string{"content-length", "+2"}), "ab", ""},
		"a length for no body":              {with(get, [2]string{"content-length", "40"}), "", ""},
		"transfer-encoding":                 {with(post, [2]string{"transfer-encoding", "chunked"}), "0\r\n\r\nGET /evil HTTP/1.1\r\n\r\n", ""},
		"connection":                        {with(get, [2]string{"connection", "x-a"}, [2]string{"x-a", "b"}), "", ""},
		"upgrade":                           {with(get, [2]string{"upgrade", "websocket"}), "", ""},
		"te of another kind":                {with(get, [2]string{"te", "gzip"}), "", ""},
		"CR LF in a value":                  {with(get, [2]string{"x-a", "b\r\nTransfer-Encoding: chunked"}), "", ""},
		"LF in a value":                     {with(get, [2]string{"x-a", "b\nHost: evil.test"}), "", ""},
		"zero in a value":                   {with(get, [2]string{"x-a", "b\x00"}), "", ""},
		"CR LF in a name":                   {with(get, [2]string{"x-a: b\r\nx-c", "d"}), "", ""},
		"a colon in a name":                 {with(get, [2]string{"x-a:b", "d"}), "", ""},
		"capitals in a name":                {with(get, [2]string{"X-A", "b"}), "", ""},
		"an empty name":                     {with(get, [2]string{"", "b"}), "", ""},
		"CR LF in the path":                 {change(":path", "/a HTTP/1.1\r\nHost: evil.test\r\n\r\nGET /evil"), "", ""},
		"a space in the path":               {change(":path", "/a HTTP/1.1"), "", ""},
		"no slash in the path":              {change(":path", "a"), "", ""},
		"an absolute path":                  {change(":path", "http://evil.test/a"), "", ""},
		"an empty path":                     {change(":path", ""), "", ""},
		"CR LF in the method":               {change(":method", "GET /evil HTTP/1.1\r\nHost: app.test\r\n\r\nGET"), "", ""},
		"a space in the method":             {change(":method", "GET /evil"), "", ""},
		"CR LF in the authority":            {change(":authority", host+"\r\nX-A: b"), "", ""},
		"another scheme":                    {change(":scheme", "http://evil.test/?"), "", ""},
		"a pseudo field after a field":      {append(fields{{"x-a", "b"}}, get...), "", ""},
		"a pseudo field twice":              {with(get, [2]string{":path", "/evil"}), "", ""},
		"an unknown pseudo field":           {append(fields{{":evil", "b"}}, get...), "", ""},
		"a response's pseudo field":         {append(fields{{":status", "200"}}, get...), "", ""},
		"no method":                         {get[1:], "", ""},
		"a host beside the authority":       {with(get, [2]string{"host", "evil.test"}), "", "GET /a "},
		"CONNECT":                           {fields{{":method", "CONNECT"}, {":authority", host + ":80"}}, "", ""},
		"CONNECT for a WebSocket":           {append(change(":method", "CONNECT"), [2]string{":protocol", "websocket"}), "", ""},
		"the ingress's own fields":          {with(get, [2]string{"x-forwarded-host", "evil.test"}, [2]string{"x-forwarded-client-cert", "Hash=1"}), "", "GET /a "},
		"what belongs to HTTP/1.1's chunks": {with(post, [2]string{"trailer", "content-length"}), "ab", "POST /a ab"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWire(t)
			f := serve(t, ingress.Config{})
			f.Apply(replicas(w.addr))
			conn, _ := f.dial(t, http2.ClientPreface)
			status := ask(t, conn, test.fields, test.body)
			got := w.take(t)
			switch {
			case test.reaches == "" && (len(got) > 0 || status == "200"):
				t.Errorf("the replica got %q and the client %s, want a refusal", got, status)
			case test.reaches != "" && (len(got) != 1 || got[0] != test.reaches || status != "200"):
				t.Errorf("the replica got %q and the client %s, want %q", got, status, test.reaches)
			}
			f.get(t, "/other")
			if got := w.take(t); len(got) != 1 || got[0] != "GET /other " {
				t.Errorf("then the replica got %q, want the next client's request", got)
			}
		})
	}
}

// ask sends one request as it stands and returns its status, or how it was refused.
func ask(t *testing.T, conn net.Conn, fields [][2]string, body string) string {
	t.Helper()
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range fields {
		if err := enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			t.Fatal(err)
		}
	}
	framer := http2.NewFramer(conn, conn)
	framer.AllowIllegalWrites = true
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	// Errors of writing are the connection's end, which the reading below finds.
	_ = framer.WriteSettings()
	_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: body == ""})
	if body != "" {
		_ = framer.WriteData(1, true, []byte(body))
	}
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	status := ""
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return status + " " + err.Error()
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			status = frame.PseudoValue("status")
		case *http2.RSTStreamFrame:
			return frame.ErrCode.String()
		case *http2.GoAwayFrame:
			return frame.ErrCode.String()
		}
		if h := frame.Header(); h.StreamID == 1 && h.Flags.Has(http2.FlagDataEndStream) {
			return status
		}
	}
}

// Whatever comes by a connection, a replica reads whole requests with one meaning, each for the host that it has a route
// for.
func FuzzFront(f *testing.F) {
	for _, seed := range []string{
		"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n",
		"POST /a?b=c HTTP/1.1\r\nHost: app.test\r\nContent-Length: 2\r\n\r\nabGET /b HTTP/1.1\r\nHost: app.test\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\nTrailer: X-A\r\n\r\n2;a=b\r\nab\r\n0\r\nX-A: b\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"GET http://app.test/a HTTP/1.0\r\nHost: app.test:80\r\nX-A: b\r\n c\r\nConnection: x-a, close\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nab",
		"OPTIONS * HTTP/1.1\r\nHost: app.test\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\na",
		http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x13\x01\x05\x00\x00\x00\x01\x82\x84\x86\x41\x06app.te\x00\x01a\x01b",
	} {
		f.Add([]byte(seed))
	}
	front := serve(f, ingress.Config{})
	f.Fuzz(func(t *testing.T, data []byte) {
		w := newWire(t)
		front.Apply(replicas(w.addr))
		conn, err := net.Dial("tcp", front.plain)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		// An HTTP/2 connection stays open for as long as its client likes.
		conn.SetDeadline(time.Now().Add(50 * time.Millisecond))
		_, _ = conn.Write(data) // it may hang up in the middle
		_ = conn.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, conn)
		conn.Close()
		until(t, "nothing is in flight", func() bool { return len(front.Report().InFlight) == 0 })
		w.take(t)
	})
}
