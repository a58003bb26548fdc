package front_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"penstock/internal/ingress/front"
)

// serving is a server on loopback.
type serving struct {
	*front.Server
	addr string
	log  *bytes.Buffer // complete once the server is closed
	open int           // connections that are the server's; guarded by mu
	mu   sync.Mutex
	stop func()
}

// serve starts one that is closed at the end of the test, with what change makes of it.
func serve(t testing.TB, handler http.HandlerFunc, change func(*front.Server)) *serving {
	t.Helper()
	s := &serving{log: new(bytes.Buffer)}
	count := func(n int) func() {
		return func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.open += n
		}
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	s.Server = &front.Server{
		Handler: handler,
		HTTP2:   &http.Server{Handler: handler, Protocols: protocols},
		Opened:  count(1), Closed: count(-1),
		HeaderTimeout: lasts(10 * time.Second), IdleTimeout: 10 * time.Second, MaxHeaderBytes: 60 << 10,
		Log: slog.New(slog.NewTextHandler(s.log, nil)),
	}
	if change != nil {
		change(s.Server)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = ln.Addr().String()
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { done <- s.Serve(ctx, ln) }()
	s.stop = sync.OnceFunc(func() {
		s.Close()
		ln.Close()
		cancel()
		if err := <-done; !errors.Is(err, front.ErrClosed) {
			t.Errorf("Serve: got %v, want ErrClosed", err)
		}
	})
	t.Cleanup(s.stop)
	return s
}

// secure makes a server one of TLS.
func secure(t testing.TB) func(*front.Server) {
	t.Helper()
	ts := httptest.NewUnstartedServer(nil)
	ts.EnableHTTP2 = true
	ts.StartTLS()
	defer ts.Close()
	config := &tls.Config{Certificates: ts.TLS.Certificates, NextProtos: []string{"h2", "http/1.1"}}
	return func(s *front.Server) { s.TLS = config }
}

// dial opens a connection and sends text.
func (s *serving) dial(t testing.TB, text string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	return talk(t, conn, text)
}

func (s *serving) dialTLS(t testing.TB, text string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := tls.Dial("tcp", s.addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	return talk(t, conn, text)
}

func talk(t testing.TB, conn net.Conn, text string) (net.Conn, *bufio.Reader) {
	t.Helper()
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

// answer reads a response to a request of that method, and its body.
func answer(t testing.TB, r *bufio.Reader, method string) (*http.Response, string) {
	t.Helper()
	resp, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// ended wants nothing more to come.
func ended(t testing.TB, r *bufio.Reader) {
	t.Helper()
	if rest, err := io.ReadAll(r); len(rest) > 0 || err != nil {
		t.Errorf("got %.100q, %v, want the end", rest, err)
	}
}

func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// echo answers with what it has got.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	text := fmt.Sprintf("%s %s %s %s", r.Method, r.Host, r.RequestURI, body)
	w.Header().Set("Content-Length", fmt.Sprint(len(text)))
	io.WriteString(w, text)
}

func TestRequestsFollowEachOther(t *testing.T) {
	s := serve(t, echo, nil)
	one := "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab"
	chunks := "POST /b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n"
	get := "GET /c HTTP/1.1\r\nHost: h\r\n\r\n"
	for name, send := range map[string]func(net.Conn){
		"at once":     func(conn net.Conn) { io.WriteString(conn, one+chunks+get) },
		"empty lines": func(conn net.Conn) { io.WriteString(conn, "\r\n"+one+"\r\n\r\n"+chunks+"\r\n"+get) },
		"byte by byte": func(conn net.Conn) {
			for _, b := range []byte(one + chunks + get) {
				conn.Write([]byte{b})
			}
		},
	} {
		conn, r := s.dial(t, "")
		go send(conn)
		for _, want := range []string{"POST h /a ab", "POST h /b ab", "GET h /c "} {
			if resp, body := answer(t, r, "POST"); resp.StatusCode != 200 || body != want || resp.Close {
				t.Errorf("%s: got %d %q, want %q, and the connection kept", name, resp.StatusCode, body, want)
			}
		}
	}
}

func TestWhenConnectionsEnd(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/close" {
			w.Header().Set("Connection", "close")
		}
		if r.URL.Path != "/unknown" {
			w.Header().Set("Content-Length", "2")
		}
		io.WriteString(w, "ok")
	}, nil)
	for name, test := range map[string]struct {
		request string
		kept    string // what the response says of it; "": it ends
	}{
		"HTTP/1.1":                           {"GET / HTTP/1.1\r\nHost: h\r\n\r\n", "nothing"},
		"HTTP/1.1, close":                    {"GET / HTTP/1.1\r\nHost: h\r\nConnection: x, Close\r\n\r\n", ""},
		"HTTP/1.1, the handler wants an end": {"GET /close HTTP/1.1\r\nHost: h\r\n\r\n", ""},
		"HTTP/1.1, no length":                {"GET /unknown HTTP/1.1\r\nHost: h\r\n\r\n", "nothing"},
		"HTTP/1.0":                           {"GET / HTTP/1.0\r\n\r\n", ""},
		"HTTP/1.0, keep-alive":               {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "keep-alive"},
		"HTTP/1.0, no length":                {"GET /unknown HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", ""},
	} {
		conn, r := s.dial(t, test.request)
		resp, body := answer(t, r, "GET")
		if resp.StatusCode != 200 || body != "ok" {
			t.Errorf("%s: got %d %q, want 200 ok", name, resp.StatusCode, body)
		}
		if test.kept == "" {
			ended(t, r)
			continue
		}
		if got := resp.Header.Get("Connection"); resp.Close || got != strings.TrimPrefix(test.kept, "nothing") {
			t.Errorf("%s: got Connection %q, want %s", name, got, test.kept)
		}
		io.WriteString(conn, test.request)
		if _, body := answer(t, r, "GET"); body != "ok" {
			t.Errorf("%s: got %q on the second request", name, body)
		}
	}
}

func TestResponseFraming(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 20<<10)
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		switch r.URL.Path {
		case "/nothing":
		case "/status":
			w.WriteHeader(http.StatusTeapot)
		case "/length":
			h.Set("Content-Length", fmt.Sprint(len(long)))
			io.WriteString(w, long)
		case "/chunks":
			for i := 0; i < len(long); i += 70_000 {
				io.WriteString(w, long[i:min(i+70_000, len(long))])
			}
		case "/crumbs":
			for i := 0; i < len(long); i += 7 {
				io.WriteString(w, long[i:min(i+7, len(long))])
			}
		case "/short":
			h.Set("Content-Length", "10")
			io.WriteString(w, "short")
		case "/overlong":
			h.Set("Content-Length", "2")
			io.WriteString(w, "ok")
			if _, err := io.WriteString(w, "!"); !errors.Is(err, http.ErrContentLength) {
				t.Errorf("a byte too many: got %v, want ErrContentLength", err)
			}
		case "/204":
			h.Set("Content-Length", "0")
			w.WriteHeader(204)
		case "/304":
			w.WriteHeader(304)
			if _, err := io.WriteString(w, "x"); !errors.Is(err, http.ErrBodyNotAllowed) {
				t.Errorf("a body of 304: got %v, want ErrBodyNotAllowed", err)
			}
		case "/evil":
			h["X-A"] = []string{"b\r\nEvil: 1"}
			h["X-B\r\nEvil"] = []string{"1"}
			h["Transfer-Encoding"] = []string{"gzip"}
			h["Content-Length"] = []string{"-1"}
			io.WriteString(w, "ok")
		case "/trailer":
			io.WriteString(w, "ok")
			h.Set(http.TrailerPrefix+"X-Sum", "1")
			h.Set(http.TrailerPrefix+"Content-Length", "1")
		}
	}, nil)
	tls := serve(t, s.Handler.ServeHTTP, secure(t))
	for _, test := range []struct {
		method, path, body string
		check              func(*http.Response) bool
	}{
		{"GET", "/nothing", "", func(r *http.Response) bool {
			return r.StatusCode == 200 && r.ContentLength == 0 && r.Header.Get("Date") != ""
		}},
		{"GET", "/status", "", func(r *http.Response) bool { return r.StatusCode == 418 && r.ContentLength < 0 }},
		{"GET", "/length", long, func(r *http.Response) bool { return r.ContentLength == int64(len(long)) }},
		{"HEAD", "/length", "", func(r *http.Response) bool { return r.ContentLength == int64(len(long)) }},
		{"GET", "/chunks", long, func(r *http.Response) bool { return r.ContentLength < 0 }},
		{"GET", "/crumbs", long, func(r *http.Response) bool { return r.ContentLength < 0 }},
		{"GET", "/overlong", "ok", func(r *http.Response) bool { return true }},
		{"GET", "/204", "", func(r *http.Response) bool { return r.Header.Get("Content-Length") == "" }},
		{"GET", "/304", "", func(r *http.Response) bool { return true }},
		{"GET", "/evil", "ok", func(r *http.Response) bool {
			return r.Header.Get("Evil") == "" && r.Header.Get("X-A") == "b  Evil: 1" && r.ContentLength < 0
		}},
		{"GET", "/trailer", "ok", func(r *http.Response) bool { return r.Trailer.Get("X-Sum") == "1" && len(r.Trailer) == 1 }},
	} {
		_, plain := s.dial(t, test.method+" "+test.path+" HTTP/1.1\r\nHost: h\r\n\r\nGET /nothing HTTP/1.1\r\nHost: h\r\n\r\n")
		_, over := tls.dialTLS(t, test.method+" "+test.path+" HTTP/1.1\r\nHost: h\r\n\r\nGET /nothing HTTP/1.1\r\nHost: h\r\n\r\n")
		for name, r := range map[string]*bufio.Reader{"http": plain, "https": over} {
			resp, body := answer(t, r, test.method)
			if body != test.body || !test.check(resp) {
				t.Errorf("%s %s %s: got %d %v %.100q", name, test.method, test.path, resp.StatusCode, resp.Header, body)
			}
			if resp, _ := answer(t, r, "GET"); resp.StatusCode != 200 || resp.ContentLength != 0 {
				t.Errorf("%s %s %s: the response after it: got %d %v", name, test.method, test.path, resp.StatusCode, resp.Header)
			}
		}
	}
	_, r := s.dial(t, "GET /short HTTP/1.1\r\nHost: h\r\n\r\n")
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(resp.Body); string(body) != "short" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a response that is too short: got %q, %v, want what there is and an error", body, err)
	}
}

func TestBodiesThatNobodyReads(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusForbidden) }, nil)
	small := "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 100_000)
	_, r := s.dial(t, small+small)
	for range 2 {
		if resp, _ := answer(t, r, "POST"); resp.StatusCode != 403 {
			t.Errorf("got %d, want 403", resp.StatusCode)
		}
	}
	// What is too much to read is not, and the client still gets the response.
	conn, r := s.dial(t, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n\r\n")
	go io.Copy(conn, io.LimitReader(zeros{}, 900<<10))
	if resp, _ := answer(t, r, "POST"); resp.StatusCode != 403 {
		t.Errorf("got %d, want 403", resp.StatusCode)
	}
	ended(t, r)
	_, r = s.dial(t, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
	if resp, _ := answer(t, r, "POST"); resp.StatusCode != 403 || !resp.Close {
		t.Errorf("got %d, close %v, want 403, no 100 and the end", resp.StatusCode, resp.Close)
	}
	ended(t, r) // nobody can say whether the body comes
}

// What the client waits for may be found out by one goroutine while another sends the response.
func TestBodyThatIsReadBesideTheResponse(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		var wg sync.WaitGroup
		wg.Go(func() { io.Copy(io.Discard, r.Body) })
		for range 1000 {
			io.WriteString(w, "x")
			w.(http.Flusher).Flush()
		}
		wg.Wait()
	}, nil)
	for range 10 {
		_, r := s.dial(t, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nab")
		if resp, body := answer(t, r, "POST"); resp.StatusCode != 200 || len(body) != 1000 || !resp.Close {
			t.Errorf("got %d, %d bytes, close %v, want 200, 1000 bytes and the end", resp.StatusCode, len(body), resp.Close)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestClientThatLeavesEndsItsRequest(t *testing.T) {
	var causes chan error
	var began chan struct{}
	handler := func(w http.ResponseWriter, r *http.Request) {
		began <- struct{}{}
		<-r.Context().Done()
		causes <- context.Cause(r.Context())
	}
	anew := func() { causes, began = make(chan error, 2), make(chan struct{}, 2) } // for two requests
	for name, request := range map[string]string{
		"no body": "GET / HTTP/1.1\r\nHost: h\r\n\r\n", "a body that is not read": "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nhalf",
		"another request behind it": "GET / HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
	} {
		for how, leave := range map[string]func(net.Conn){
			"closed": func(c net.Conn) { c.Close() }, "reset": func(c net.Conn) { c.(*net.TCPConn).SetLinger(0); c.Close() },
			"half-closed": func(c net.Conn) { c.(*net.TCPConn).CloseWrite() },
		} {
			anew()
			s := serve(t, handler, nil)
			conn, _ := s.dial(t, request)
			<-began
			leave(conn)
			select {
			case cause := <-causes:
				if !errors.Is(cause, front.ErrClientGone) {
					t.Errorf("%s, %s: got %v, want ErrClientGone", name, how, cause)
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("%s, %s: the request goes on", name, how)
			}
			s.stop()
		}
	}
	anew()
	s := serve(t, handler, secure(t))
	conn, _ := s.dialTLS(t, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	<-began
	conn.Close()
	if cause := <-causes; !errors.Is(cause, front.ErrClientGone) {
		t.Errorf("TLS: got %v, want ErrClientGone", cause)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	refused := make(chan int, 10)
	s := serve(t, echo, func(s *front.Server) {
		s.HeaderTimeout, s.IdleTimeout, s.MaxHeaderBytes = lasts(500*time.Millisecond), time.Second, 1<<10
		s.Refused = func(_ context.Context, status int) { refused <- status }
	})
	_, r := s.dial(t, "GET / HTTP/1.1\r\nHost:")
	if resp, _ := answer(t, r, "GET"); resp.StatusCode != 408 || !resp.Close {
		t.Errorf("half a head: got %d, want 408 and the end", resp.StatusCode)
	}
	_, r = s.dial(t, "")
	ended(t, r)
	_, r = s.dial(t, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	answer(t, r, "GET")
	ended(t, r) // idle
	_, r = s.dial(t, "GET / HTTP/1.1\r\nHost: h\r\nA: "+strings.Repeat("b", 2<<10)+"\r\n\r\n")
	if resp, _ := answer(t, r, "GET"); resp.StatusCode != 431 {
		t.Errorf("a large head: got %d, want 431", resp.StatusCode)
	}
	// Once the head is there, none of these limits holds.
	conn, r := s.dial(t, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	answer(t, r, "GET")
	io.WriteString(conn, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\na")
	time.AfterFunc(1500*time.Millisecond, func() { io.WriteString(conn, "b") })
	if resp, body := answer(t, r, "POST"); resp.StatusCode != 200 || body != "POST h / ab" {
		t.Errorf("a slow body: got %d %q, want it whole", resp.StatusCode, body)
	}
	if first, second := <-refused, <-refused; first != 408 || second != 431 || len(refused) > 0 {
		t.Errorf("refused: got %d, %d and %d more, want 408 and 431", first, second, len(refused))
	}
}

func TestHandlersDeadlineBoundsTheBody(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		echo(w, r)
	}, nil)
	_, r := s.dial(t, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\na")
	if resp, body := answer(t, r, "POST"); resp.StatusCode != 400 || !strings.Contains(body, "timeout") {
		t.Errorf("got %d %q, want the time-out", resp.StatusCode, body)
	}
}

func TestHijack(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		if _, _, err := http.NewResponseController(w).Hijack(); err == nil {
			t.Error("a second time: got no error")
		}
		io.Copy(conn, buffered)
	}, nil)
	early := strings.Repeat("early", 1000)
	conn, r := s.dial(t, "GET / HTTP/1.1\r\nHost: h\r\n\r\n"+early)
	first := make([]byte, len(early))
	if _, err := io.ReadFull(r, first); string(first) != early || err != nil {
		t.Errorf("got %q, %v, want what was sent", first, err)
	}
	limit, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := s.Shutdown(limit); err != nil {
		t.Errorf("Shutdown: got %v, want nothing, as the connection is not the server's any more", err)
	}
	io.WriteString(conn, " late")
	conn.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(r); string(got) != " late" || err != nil {
		t.Errorf("got %q, %v, want what was sent", got, err)
	}
	until(t, "the server has forgotten the connection", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.open == 0
	})
}

func TestHTTP2GoesToItsServer(t *testing.T) {
	handler := func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%s %v", r.Proto, r.TLS != nil) }
	s := serve(t, handler, secure(t))
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}}
	defer client.CloseIdleConnections()
	plain := serve(t, handler, nil)
	clear := &http.Client{Transport: &http.Transport{Protocols: new(http.Protocols)}}
	clear.Transport.(*http.Transport).Protocols.SetUnencryptedHTTP2(true)
	defer clear.CloseIdleConnections()
	for url, wanted := range map[string]string{"https://" + s.addr: "HTTP/2.0 true", "http://" + plain.addr: "HTTP/2.0 false"} {
		c := client
		if strings.HasPrefix(url, "http:") {
			c = clear
		}
		resp, err := c.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(body) != wanted {
			t.Errorf("%s: got %q, want %q", url, body, wanted)
		}
	}
	if _, r := s.dialTLS(t, "GET / HTTP/1.1\r\nHost: h\r\n\r\n"); r != nil {
		if _, body := answer(t, r, "GET"); body != "HTTP/1.1 true" {
			t.Errorf("got %q, want HTTP/1.1", body)
		}
	}
	_, r := plain.dial(t, "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n")
	if resp, _ := answer(t, r, "GET"); resp.StatusCode != 400 {
		t.Errorf("half a preface: got %d, want 400", resp.StatusCode)
	}
}

func TestPlainRequestToTLS(t *testing.T) {
	s := serve(t, echo, secure(t))
	_, r := s.dial(t, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	if resp, body := answer(t, r, "GET"); resp.StatusCode != 400 || !strings.Contains(body, "speaks https") {
		t.Errorf("got %d %q, want 400 that says what is wrong", resp.StatusCode, body)
	}
	ended(t, r)
}

func TestHandlerThatPanics(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/on-purpose" {
			panic(http.ErrAbortHandler)
		}
		panic("oh no")
	}, nil)
	for _, path := range []string{"/on-purpose", "/fault"} {
		_, r := s.dial(t, "GET "+path+" HTTP/1.1\r\nHost: h\r\n\r\n")
		ended(t, r)
	}
	s.stop()
	if got := s.log.String(); strings.Count(got, "a handler panicked") != 1 || !strings.Contains(got, "oh no") || !strings.Contains(got, "front_test.go") {
		t.Errorf("got the log %q, want the fault, once, and where it was", got)
	}
}

func TestCloseEndsRequests(t *testing.T) {
	began, causes := make(chan struct{}), make(chan error, 1)
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		close(began)
		<-r.Context().Done()
		causes <- context.Cause(r.Context())
	}, nil)
	_, r := s.dial(t, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	<-began
	s.stop()
	if cause := <-causes; !errors.Is(cause, front.ErrClosed) {
		t.Errorf("got %v, want ErrClosed", cause)
	}
	if _, err := io.ReadAll(r); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("got %v, want the end", err)
	}
}

func lasts(d time.Duration) func() time.Duration { return func() time.Duration { return d } }

// late is a listener that has one connection when the server has been closed.
type late struct {
	net.Listener
	conn   net.Conn
	asked  chan struct{}
	closed chan struct{}
	once   sync.Once
}

func (l *late) Accept() (conn net.Conn, err error) {
	err = net.ErrClosed
	l.once.Do(func() {
		close(l.asked)
		<-l.closed
		conn, err = l.conn, nil
	})
	return conn, err
}

func TestConnectionThatComesDuringClose(t *testing.T) {
	s := serve(t, echo, secure(t))
	open := 0
	other := &front.Server{
		Handler: s.Handler, HTTP2: new(http.Server), TLS: s.TLS, Log: s.Log, HeaderTimeout: lasts(time.Minute),
		Opened: func() { open++ }, Closed: func() { open-- },
	}
	here, there := net.Pipe()
	defer here.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	ln := &late{Listener: listener, conn: there, asked: make(chan struct{}), closed: make(chan struct{})}
	done := make(chan error, 1)
	go func() { done <- other.Serve(t.Context(), ln) }()
	<-ln.asked
	other.Close()
	close(ln.closed)
	if err := <-done; !errors.Is(err, front.ErrClosed) || open != 0 {
		t.Errorf("got %v, %d connections, want ErrClosed and none", err, open)
	}
	here.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := here.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("got %v, want the end", err)
	}
}

func TestServeAfterClose(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	s := &front.Server{HTTP2: new(http.Server)}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	s.Close()
	if err := s.Serve(t.Context(), ln); !errors.Is(err, front.ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
}

func TestShutdown(t *testing.T) {
	began, end := make(chan struct{}), make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			began <- struct{}{}
			<-end
		}
		w.Header().Set("Content-Length", "2")
		io.WriteString(w, "ok")
	}, nil)
	_, fresh := s.dial(t, "")
	_, rested := s.dial(t, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	answer(t, rested, "GET")
	_, slow := s.dial(t, "GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
	<-began
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while a request goes on: got %v, want the deadline", err)
	}
	ended(t, fresh)
	ended(t, rested)
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(t.Context()) }()
	close(end)
	if resp, body := answer(t, slow, "GET"); body != "ok" || !resp.Close {
		t.Errorf("got %q, close %v, want the response, and the connection's end", body, resp.Close)
	}
	ended(t, slow)
	if err := <-done; err != nil {
		t.Errorf("got %v, want nothing", err)
	}
}
