package ingress_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"penstock/internal/ingress"
	"penstock/internal/link"
	"penstock/internal/resource"
)

// HTTP/2 ends at the ingress; replicas are spoken to in HTTP/1.1.
func TestHTTP2(t *testing.T) {
	f := serve(t, ingress.Config{})
	next, ended := make(chan struct{}), make(chan struct{}, 1)
	table := replicas(app(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/echo":
			body, _ := io.ReadAll(r.Body)
			w.Header().Set(http.TrailerPrefix+"X-Sum", fmt.Sprint(len(body)))
			w.Write(body)
		case "/events":
			for i := range 5 {
				fmt.Fprintf(w, "data: %d\n", i)
				w.(http.Flusher).Flush()
				<-next
			}
			<-r.Context().Done()
			ended <- struct{}{}
		case "/refuse":
			http.NewResponseController(w).EnableFullDuplex() // else it waits for the body
			w.WriteHeader(http.StatusForbidden)
			io.WriteString(w, r.Proto)
		}
	}))
	table.Certificates = []link.Certificate{certificate(t, host)}
	f.Apply(table)
	client := clientTo(t, f.secure)
	transport := client.Transport.(*http.Transport)
	transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	transport.ForceAttemptHTTP2 = true
	defer client.CloseIdleConnections()

	large := bytes.Repeat([]byte("x"), 3<<20)
	for _, body := range [][]byte{[]byte("small"), large} {
		resp, err := client.Post("https://"+host+"/echo", "", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.ProtoMajor != 2 || !bytes.Equal(got, body) || err != nil {
			t.Errorf("got HTTP/%d, %d bytes, %v, want HTTP/2, %d bytes", resp.ProtoMajor, len(got), err, len(body))
		}
		if sum := resp.Trailer.Get("X-Sum"); sum != fmt.Sprint(len(body)) {
			t.Errorf("trailer: got %q, want %d", sum, len(body))
		}
	}

	resp, err := client.Get("https://" + host + "/events")
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(resp.Body)
	for i := range 5 {
		if line, err := lines.ReadString('\n'); line != fmt.Sprintf("data: %d\n", i) {
			t.Fatalf("event %d: got %q, %v", i, line, err)
		}
		next <- struct{}{}
	}
	resp.Body.Close()
	receive(t, "the replica hears that the client left", ended)

	// An answer before the body's end leaves the connection to the other streams.
	in, out := io.Pipe()
	defer out.Close()
	resp, err = client.Post("https://"+host+"/refuse", "", in)
	if err == nil {
		got, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		want(t, resp, string(got), 403, "HTTP/1.1")
	} else {
		t.Error(err)
	}
}

// A response's fields that it has declared as its trailer are read once the client has taken the body, which is up to the
// client: they must not be those of another response by then.
func TestTrailerHasNoFieldOfAnotherResponse(t *testing.T) {
	f := serve(t, ingress.Config{})
	f.Apply(replicas(raw(t, func(conn net.Conn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		if req.URL.Path == "/a" {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nTrailer: X-A\r\nX-A: a\r\nContent-Length: 2\r\n\r\nok")
		} else {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nServer: b\r\nSet-Cookie: secret\r\n\r\n")
		}
		r.ReadByte() // until the other side goes
	})))
	conn, _ := f.dial(t, http2.ClientPreface)
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", host}, {":path", "/a"}} {
		_ = enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}) // to memory
	}
	// Errors of writing are the connection's end, which the reading below finds.
	_ = framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true})
	for asked := false; ; {
		frame, err := framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if head, ok := frame.(*http2.MetaHeadersFrame); ok {
			for _, field := range head.RegularFields() {
				if field.Name == "x-a" && field.Value != "a" {
					t.Errorf("got X-A: %q, want a", field.Value)
				}
			}
			if !asked {
				asked = true
				for range 20 { // responses that go on for as long as this test
					_, r := f.dial(t, "GET /b HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
					if _, err := http.ReadResponse(r, nil); err != nil {
						t.Fatal(err)
					}
				}
				_ = framer.WriteWindowUpdate(1, 2)
			}
		}
		if h := frame.Header(); h.StreamID == 1 && h.Flags.Has(http2.FlagDataEndStream) {
			return
		}
	}
}

// Whoever sends a request over HTTP/2 may be at it when the exchange is over: with -race, this fails when fields or bodies
// are in memory that the next request gets.
func TestRequestsOverHTTP2AreNotUsedAgain(t *testing.T) {
	f := serve(t, ingress.Config{})
	came := make(chan struct{}, 100)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			came <- struct{}{}
			<-r.Context().Done()
		}
		w.WriteHeader(http.StatusForbidden)
	}))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	f.Apply(transport(replicas(s.Listener.Addr().String()), resource.TransportHTTP2))
	refused := "POST / HTTP/1.1\r\nHost: " + host + "\r\nA: b\r\nContent-Length: 32000\r\n\r\n" + strings.Repeat("x", 32000)
	var wg sync.WaitGroup
	defer wg.Wait()
	for range 4 {
		wg.Go(func() {
			for range 100 {
				conn, err := net.Dial("tcp", f.plain)
				if err != nil {
					t.Error(err)
					return
				}
				io.WriteString(conn, refused)
				if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || resp.StatusCode != 403 {
					t.Errorf("got %v, %v, want 403", resp, err)
				}
				conn.Close()
			}
		})
	}
	for range 20 {
		conn, _ := f.dial(t, "GET /wait HTTP/1.1\r\nHost: "+host+"\r\nC: d\r\n\r\n")
		receive(t, "the request", came)
		conn.Close()
	}
}

// What a client does not take holds up no other client of the replica's connection.
func TestHintsThatNobodyTakes(t *testing.T) {
	f := serve(t, ingress.Config{})
	sent := make(chan struct{})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hints" {
			w.Header().Set("Link", strings.Repeat("x", 10<<10))
			for range 3000 { // more than kernels keep for a connection
				w.WriteHeader(http.StatusEarlyHints)
			}
			close(sent)
			<-r.Context().Done()
		}
	}))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	f.Apply(transport(replicas(s.Listener.Addr().String()), resource.TransportHTTP2))
	resp, body := f.get(t, "/")
	want(t, resp, body, 200, "")
	conn, _ := f.dial(t, "GET /hints HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
	receive(t, "the replica's connection is read from", sent)
	resp, body = f.get(t, "/")
	want(t, resp, body, 200, "")
	conn.Close()
}

// A stream may be reset at any moment in which a head before its response is written.
func TestHintsOfStreamsThatAreReset(t *testing.T) {
	f := serve(t, ingress.Config{})
	var hint strings.Builder // so much that it takes its time
	hint.WriteString("HTTP/1.1 103 Early Hints\r\n")
	for i := range 90 {
		fmt.Fprintf(&hint, "X-%d: %0500d\r\n", i, i)
	}
	hint.WriteString("\r\n")
	f.Apply(replicas(raw(t, func(conn net.Conn, r *bufio.Reader) {
		if _, err := http.ReadRequest(r); err != nil {
			return
		}
		for range 20 {
			io.WriteString(conn, hint.String())
		}
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		r.ReadByte() // until the other side goes
	})))
	conn, _ := f.dial(t, http2.ClientPreface)
	framer := http2.NewFramer(conn, conn)
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	_ = framer.WriteSettings() // an error is the connection's end, which the last line finds
	var wg sync.WaitGroup
	defer wg.Wait()
	defer conn.Close()
	wg.Go(func() { io.Copy(io.Discard, conn) })
	for i := range 300 {
		block.Reset()
		for _, f := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", host}, {":path", "/"}} {
			_ = enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}) // to memory
		}
		id := uint32(2*i + 1)
		_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true})
		for moment := time.Now().Add(time.Duration(i) * 10 * time.Microsecond); time.Now().Before(moment); {
		}
		if err := framer.WriteRSTStream(id, http2.ErrCodeCancel); err != nil {
			t.Fatal(err)
		}
	}
}
