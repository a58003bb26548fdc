package ingress_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"regexp"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"penstock/internal/accesslog"
	"penstock/internal/ingress"
	"penstock/internal/resource"
)

func TestRequestHeaders(t *testing.T) {
	var got http.Header
	f := serve(t, ingress.Config{})
	f.Apply(replicas(app(t, func(w http.ResponseWriter, r *http.Request) { got = r.Header.Clone() })))
	_, r := f.dial(t, "GET / HTTP/1.1\r\nHost: app.test\r\nConnection: close, x-mine, X-Forwarded-For\r\nX-Mine: 1\r\n"+
		"Keep-Alive: 5\r\nProxy-Connection: x\r\nTE: trailers, deflate\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n"+
		"X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Penstock-Hops: forged\r\nX-Forwarded-Client-Cert: forged\r\n"+
		"X_Forwarded_For: 5.6.7.8\r\nX_FORWARDED-Client_Cert: forged\r\nContent_Length: 5\r\nTransfer_Encoding: chunked\r\nX_Mine: 2\r\n"+
		"X-Request-Id: abc\r\nX-Kept: a\r\nX-Kept: b\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n")
	if _, err := http.ReadResponse(r, nil); err != nil {
		t.Fatal(err)
	}
	if hops := got["X-Penstock-Hops"]; len(hops) != 1 || len(hops[0]) != 22 {
		t.Errorf("x-penstock-hops: got %q, want one entry", hops)
	}
	delete(got, "X-Penstock-Hops")
	wanted := http.Header{
		"X-Kept": {"a", "b"}, "X_mine": {"2"}, "X-Request-Id": {"abc"}, "X-Forwarded-For": {"1.2.3.4, 127.0.0.1"},
		"X-Forwarded-Proto": {"http"}, "X-Forwarded-Host": {"app.test"}, "Te": {"trailers"}, "Connection": {"TE"},
	}
	if fmt.Sprint(got) != fmt.Sprint(wanted) {
		t.Errorf("got  %v\nwant %v", got, wanted)
	}
	f.get(t, "/")
	if id := got.Get("X-Request-Id"); !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(id) {
		t.Errorf("x-request-id: got %q, want a version 4 UUID", id)
	}
}

func TestResponseHeaders(t *testing.T) {
	f := serve(t, ingress.Config{})
	f.Apply(replicas(says(t, "HTTP/1.1 200 Fine\r\nConnection: X-Mine\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\n"+
		"set-cookie: a=1\r\nSet-Cookie: b=2\r\nX-Empty:\r\nContent-Length: 6\r\n\r\n<html>")))
	resp, body := f.get(t, "/")
	want(t, resp, body, 200, "<html>")
	resp.Header.Del("Date")
	wanted := http.Header{"Content-Length": {"6"}, "Set-Cookie": {"a=1", "b=2"}, "X-Empty": {""}}
	if fmt.Sprint(resp.Header) != fmt.Sprint(wanted) {
		t.Errorf("got  %v\nwant %v", resp.Header, wanted)
	}
}

func TestResponsesWithoutBody(t *testing.T) {
	f := serve(t, ingress.Config{})
	f.Apply(replicas(app(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/204":
			w.WriteHeader(204)
		case "/304":
			w.Header().Set("ETag", `"x"`)
			w.WriteHeader(304)
		default:
			w.Header().Set("Content-Length", "1000")
		}
	})))
	for path, wanted := range map[string]int{"/204": 204, "/304": 304, "/head": 200} {
		method := http.MethodGet
		if path == "/head" {
			method = http.MethodHead
		}
		for range 2 { // the second one comes over the connection of the first
			resp, body := f.do(t, request(t, method, path, nil))
			want(t, resp, body, wanted, "")
			if path == "/head" && resp.ContentLength != 1000 {
				t.Errorf("HEAD: got content-length %d, want 1000", resp.ContentLength)
			}
		}
	}
	if got := f.Stats(); got.Dialled != 1 || got.Reused != 5 {
		t.Errorf("got %+v, want 1 connection for 6 requests", got)
	}
}

func TestInterimResponsesPass(t *testing.T) {
	f := serve(t, ingress.Config{})
	f.Apply(replicas(app(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		io.WriteString(w, "final")
	})))
	var hints []string
	r := request(t, http.MethodGet, "/", nil)
	r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			hints = append(hints, fmt.Sprint(code, h["Link"]))
			return nil
		},
	}))
	resp, body := f.do(t, r)
	want(t, resp, body, 200, "final")
	if fmt.Sprint(hints) != "[103 [</style.css>]]" || resp.Header.Get("Link") != "" {
		t.Errorf("got %v then Link %q, want one 103 with its link", hints, resp.Header.Get("Link"))
	}
}

// hasty is a listener whose connections let time pass a hundred times as fast when they are written to.
type hasty struct {
	net.Listener
	until atomic.Pointer[time.Time] // the newest deadline, as it really is
}

type hastyConn struct {
	*net.TCPConn
	ln *hasty
}

func (l *hasty) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return hastyConn{conn.(*net.TCPConn), l}, nil
}

func (c hastyConn) SetWriteDeadline(t time.Time) error {
	if !t.IsZero() {
		t = time.Now().Add(time.Until(t) / 100)
	}
	c.ln.until.Store(&t)
	return c.TCPConn.SetWriteDeadline(t)
}

// The time that a client had for one response does not bound what comes before the next one.
func TestInterimResponsesHaveTheirTime(t *testing.T) {
	t.Parallel()
	ln := &hasty{Listener: listen(t)}
	var passed atomic.Pointer[time.Time]
	f := serveOn(t, ingress.Config{}, ln, listen(t))
	f.Apply(set(replicas(raw(t, func(conn net.Conn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		time.Sleep(time.Until(*passed.Load()) + time.Millisecond)
		if req.Method == http.MethodPost {
			io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\n")
			io.Copy(io.Discard, req.Body)
		} else {
			io.WriteString(conn, "HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n")
		}
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
	})), func(s *resource.Settings) { s.IdleTimeout = time.Hour }))
	for name, test := range map[string]struct {
		head, body string
		interim    int
	}{
		"hints":  {"GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n", "", 103},
		"expect": {"POST / HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n", "x", 100},
	} {
		conn, r := f.dial(t, "GET / HTTP/1.1\r\nHost: elsewhere\r\n\r\n")
		if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != 404 {
			t.Fatalf("got %v, %v, want 404", resp, err)
		} else {
			io.Copy(io.Discard, resp.Body)
		}
		passed.Store(ln.until.Load())
		io.WriteString(conn, test.head)
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != test.interim {
			t.Errorf("%s: got %v, %v, want %d", name, resp, err, test.interim)
			continue
		}
		io.WriteString(conn, test.body)
		if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != 200 {
			t.Errorf("%s: got %v, %v, want 200", name, resp, err)
		}
	}
}

// A client that takes nothing holds its place no longer because all it gets is what comes before a response.
func TestInterimResponsesThatNobodyTakes(t *testing.T) {
	t.Parallel()
	f := serve(t, ingress.Config{})
	over := make(chan struct{})
	f.Apply(set(replicas(raw(t, func(conn net.Conn, r *bufio.Reader) {
		defer close(over)
		if _, err := http.ReadRequest(r); err != nil {
			return
		}
		hint := "HTTP/1.1 103 Early Hints\r\nLink: " + strings.Repeat("x", 30<<10) + "\r\n\r\n"
		for range 1000 { // more than kernels keep for a connection
			io.WriteString(conn, hint)
		}
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		r.ReadByte() // until the other side goes
	})), func(s *resource.Settings) { s.IdleTimeout = 200 * time.Millisecond }))
	f.dial(t, "GET / HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
	receive(t, "the replica is free", over)
}

// However many come, they take no memory once they are passed on.
func TestInterimResponsesAreNotKept(t *testing.T) {
	f := serve(t, ingress.Config{})
	const n = 3000
	taken := make(chan struct{})
	f.Apply(replicas(raw(t, func(conn net.Conn, r *bufio.Reader) {
		if _, err := http.ReadRequest(r); err != nil {
			return
		}
		hint := "HTTP/1.1 103 Early Hints\r\nLink: " + strings.Repeat("x", 30<<10) + "\r\n\r\n"
		for range n {
			io.WriteString(conn, hint)
		}
		<-taken
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	})))
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	_, r := f.dial(t, "GET / HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
	for range n {
		if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != 103 {
			t.Fatalf("got %v, %v, want 103", resp, err)
		}
	}
	if got := heap() - before; got > 20<<20 {
		t.Errorf("%d MiB of %d are kept", got>>20, n*30>>10)
	}
	close(taken)
	if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != 200 {
		t.Errorf("got %v, %v, want 200", resp, err)
	}
}

func TestTrailersPassBothWays(t *testing.T) {
	f := serve(t, ingress.Config{})
	f.Apply(replicas(app(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Announced")
		io.Copy(w, r.Body)
		w.Header().Set("X-Announced", r.Trailer.Get("X-Sum"))
		w.Header().Set(http.TrailerPrefix+"X-Surprise", "2")
	})))
	r := request(t, http.MethodPost, "/", struct{ io.Reader }{strings.NewReader("body")})
	r.Trailer = http.Header{"X-Sum": {"1"}}
	resp, body := f.do(t, r)
	want(t, resp, body, 200, "body")
	if resp.Trailer.Get("X-Announced") != "1" || resp.Trailer.Get("X-Surprise") != "2" {
		t.Errorf("got trailer %v, want X-Announced 1, X-Surprise 2", resp.Trailer)
	}
}

func TestEventArrivesBeforeTheNextIsSent(t *testing.T) {
	next := make(chan struct{})
	handler := func(length string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			if length != "" {
				w.Header().Set("Content-Length", length)
			}
			w.(http.Flusher).Flush()
			for i := range 10 {
				<-next
				fmt.Fprintf(w, "data: %d\n\n", i)
				w.(http.Flusher).Flush()
			}
		}
	}
	for name, length := range map[string]string{"chunked": "", "with a length": "90"} {
		f := serve(t, ingress.Config{})
		f.Apply(replicas(app(t, handler(length))))
		resp, err := f.client.Do(request(t, http.MethodGet, "/", nil)) // comes before the first event
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(resp.Body)
		for i := range 10 {
			next <- struct{}{}
			got, err := lines.ReadString('\n')
			if got != fmt.Sprintf("data: %d\n", i) || err != nil {
				t.Fatalf("%s, event %d: got %q, %v", name, i, got, err)
			}
			lines.ReadString('\n')
		}
		if _, err := lines.ReadByte(); err != io.EOF {
			t.Errorf("%s: got %v, want the end", name, err)
		}
		resp.Body.Close()
	}
}

func TestBothWaysAtOnce(t *testing.T) {
	f := serve(t, ingress.Config{})
	f.Apply(replicas(app(t, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		buf := make([]byte, 10)
		for {
			n, err := r.Body.Read(buf)
			w.Write(buf[:n])
			w.(http.Flusher).Flush()
			if err != nil {
				return
			}
		}
	})))
	in, out := io.Pipe()
	resp, err := f.client.Do(request(t, http.MethodPost, "/", in))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	buf := make([]byte, 4)
	for range 10 {
		io.WriteString(out, "ping")
		if _, err := io.ReadFull(resp.Body, buf); err != nil || string(buf) != "ping" {
			t.Fatalf("got %q, %v, want ping", buf, err)
		}
	}
	out.Close()
	if _, err := resp.Body.Read(buf); err != io.EOF {
		t.Errorf("got %v, want the end", err)
	}
}

func TestTimeouts(t *testing.T) {
	t.Parallel()
	hang := func(conn net.Conn, r *bufio.Reader) { io.Copy(io.Discard, r) }
	half := func(conn net.Conn, r *bufio.Reader) {
		http.ReadRequest(r)
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
		io.Copy(io.Discard, r)
	}
	short := 50 * time.Millisecond
	if overTLS {
		short = time.Second // the handshake takes of it
	}
	for name, test := range map[string]struct {
		talk   func(net.Conn, *bufio.Reader)
		set    func(*resource.Settings)
		status int // 0: the body is cut
		text   string
		flags  accesslog.Flags
	}{
		"request":                 {hang, func(s *resource.Settings) { s.RequestTimeout = short }, 504, "upstream request timeout", accesslog.FlagUpstreamTimeout},
		"idle":                    {hang, func(s *resource.Settings) { s.IdleTimeout = short }, 504, "stream timeout", accesslog.FlagStreamIdle},
		"request within the body": {half, func(s *resource.Settings) { s.RequestTimeout = short }, 0, "half", accesslog.FlagUpstreamTimeout},
		"idle within the body":    {half, func(s *resource.Settings) { s.IdleTimeout = short }, 0, "half", accesslog.FlagStreamIdle},
	} {
		var rec records
		f := serve(t, ingress.Config{Observe: rec.observe})
		f.Apply(set(replicas(raw(t, test.talk)), test.set))
		resp, err := f.client.Do(request(t, http.MethodPost, "/", strings.NewReader("x")))
		if err != nil {
			t.Fatal(name, err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if test.status == 0 {
			if string(body) != test.text || err == nil {
				t.Errorf("%s: got %q, %v, want %q and an error", name, body, err, test.text)
			}
		} else {
			want(t, resp, string(body), test.status, test.text)
		}
		if got := rec.last(t, 1); got.Flags != test.flags {
			t.Errorf("%s: got flags %v, want %v", name, got.Flags, test.flags)
		}
		if got := f.Stats().Retried; got != 0 {
			t.Errorf("%s: got %d more tries, want none", name, got)
		}
	}
}

// A stream that is quiet for less than the limit each time may last for as long as it likes.
func TestIdleTimeoutIsNotATotal(t *testing.T) {
	t.Parallel()
	f := serve(t, ingress.Config{})
	f.Apply(set(replicas(app(t, func(w http.ResponseWriter, r *http.Request) {
		tick := time.NewTicker(150 * time.Millisecond)
		defer tick.Stop()
		for range 10 {
			<-tick.C
			io.WriteString(w, "x")
			w.(http.Flusher).Flush()
		}
	})), func(s *resource.Settings) { s.IdleTimeout = time.Second }))
	for range 2 {
		resp, body := f.get(t, "/")
		want(t, resp, body, 200, "xxxxxxxxxx")
	}
}

func TestClientThatLeavesEndsTheUpstreamRequest(t *testing.T) {
	var rec records
	f := serve(t, ingress.Config{Observe: rec.observe})
	ended := make(chan struct{}, 1)
	f.Apply(replicas(app(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		ended <- struct{}{}
	})))
	conn, r := f.dial(t, "GET / HTTP/1.1\r\nHost: app.test\r\n\r\n")
	r.ReadString('\n')
	conn.Close()
	receive(t, "the replica hears of it", ended)
	if got := rec.last(t, 1); got.Flags != accesslog.FlagDownstreamTermination || got.Status != 200 {
		t.Errorf("got status %d, flags %v, want 200 and DC", got.Status, got.Flags)
	}
}

func TestTooManyOrTooLargeHeaders(t *testing.T) {
	t.Parallel()
	f := serve(t, ingress.Config{})
	f.Apply(replicas(app(t, func(w http.ResponseWriter, r *http.Request) {})))
	for name, fields := range map[string]string{
		"101 fields": strings.Repeat("A: b\r\n", 101),
		"70 KiB":     "A: " + strings.Repeat("b", 70<<10) + "\r\n",
	} {
		_, r := f.dial(t, "GET / HTTP/1.1\r\nHost: app.test\r\n"+fields+"\r\n")
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != 431 {
			t.Errorf("%s: got %v, %v, want 431", name, resp, err)
		}
	}
}

// How many fields a request may have is an environment's to say.
func TestHeadersOfAnEnvironment(t *testing.T) {
	f := serve(t, ingress.Config{MaxHeaders: 10})
	table := replicas(app(t, func(http.ResponseWriter, *http.Request) {}))
	for limit, most := range map[int]int{0: 10, 3: 3, 200: 200} {
		table.Routes[0].MaxHeaders = limit
		f.Apply(table)
		for n, status := range map[int]int{most: 200, most + 1: 431} { // with Host
			_, r := f.dial(t, "GET / HTTP/1.1\r\nHost: app.test\r\n"+strings.Repeat("A: b\r\n", n-1)+"\r\n")
			resp, err := http.ReadResponse(r, nil)
			if err != nil || resp.StatusCode != status {
				t.Errorf("%d fields within a limit of %d: got %v, %v, want %d", n, most, resp, err, status)
			}
		}
	}
}

func TestSlowHeadIsCutOff(t *testing.T) {
	f := serve(t, ingress.Config{HeaderTimeout: 50 * time.Millisecond})
	_, r := f.dial(t, "GET / HTTP/1.1\r\nHost:")
	if _, err := io.ReadAll(r); err != nil {
		t.Errorf("got %v, want the end of the connection", err)
	}
}

func TestRecord(t *testing.T) {
	var rec records
	f := serve(t, ingress.Config{Observe: rec.observe})
	addr := app(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, "answer")
	})
	f.Apply(replicas(addr))
	r := request(t, http.MethodPost, "/path?n=1", strings.NewReader("question"))
	r.Header.Set("X-Request-Id", "id")
	r.Header.Set("User-Agent", "test")
	r.Header["X-Forwarded-For"] = []string{"192.0.2.1, 192.0.2.2", "", "192.0.2.3"}
	f.do(t, r)
	got := rec.last(t, 1)
	if got.Duration <= 0 || got.FirstByte <= 0 || got.FirstByte > got.Duration || got.Start.IsZero() {
		t.Errorf("times: got %+v", got)
	}
	got.Start, got.Duration, got.FirstByte = time.Time{}, 0, 0
	wanted := accesslog.Record{
		Client: "127.0.0.1", Forwarded: "192.0.2.1, 192.0.2.2, 192.0.2.3, 127.0.0.1", Connection: 1, UserAgent: "test",
		Scheme: "http", Proto: "HTTP/1.1", Host: host, Method: "POST", Path: "/path?n=1", RequestID: "id",
		App: "/app", Revision: "app--1", Replica: "r0", Upstream: addr, Attempts: 1, Status: 200, BytesIn: 8, BytesOut: 6,
	}
	if got != wanted {
		t.Errorf("got  %+v\nwant %+v", got, wanted)
	}
}
