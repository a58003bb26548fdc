package load_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"penstock/internal/load"
)

// raw is a server that reads a request's header and then does as it likes with the connection.
func raw(t *testing.T, answer func(c *net.TCPConn, r *bufio.Reader)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r := bufio.NewReader(c)
				for {
					if _, err := http.ReadRequest(r); err != nil {
						return
					}
					answer(c.(*net.TCPConn), r)
				}
			}()
		}
	}()
	return "http://" + ln.Addr().String() + "/"
}

func says(text string) func(*net.TCPConn, *bufio.Reader) {
	return func(c *net.TCPConn, _ *bufio.Reader) {
		io.WriteString(c, text)
		c.Close()
	}
}

func resets(after string) func(*net.TCPConn, *bufio.Reader) {
	return func(c *net.TCPConn, _ *bufio.Reader) {
		io.WriteString(c, after)
		c.SetLinger(0)
		c.Close()
	}
}

func TestEachFailureHasItsClass(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	silent := raw(t, func(_ *net.TCPConn, r *bufio.Reader) { r.Peek(1) })
	plain := serve(t, func(http.ResponseWriter, *http.Request) {})
	stamps := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "data: hello\n\n") })
	const head = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"

	tests := map[string]struct {
		req    load.Request
		want   load.Class
		detail string
	}{
		"nobody listens":             {load.Request{URL: "http://" + closed.Addr().String()}, load.Refused, "connection refused"},
		"nobody listens for HTTP/2":  {load.Request{URL: "http://" + closed.Addr().String(), Major: 2}, load.Refused, "connection refused"},
		"nobody listens, WebSocket":  {load.Request{URL: "ws://" + closed.Addr().String()}, load.Refused, "connection refused"},
		"no way there":               {load.Request{URL: "http://255.255.255.255/"}, load.Connect, ""},
		"plain where TLS is":         {load.Request{URL: strings.Replace(plain.URL, "http", "https", 1)}, load.TLS, ""},
		"reset":                      {load.Request{URL: raw(t, resets(""))}, load.Reset, "reset"},
		"closed without an answer":   {load.Request{URL: raw(t, says(""))}, load.Closed, "EOF"},
		"closed in the header":       {load.Request{URL: raw(t, says("HTTP/1.1 200 OK\r\nContent-"))}, load.Cut, "EOF"},
		"closed in the body":         {load.Request{URL: raw(t, says(head+"12345"))}, load.Cut, "EOF"},
		"closed in a chunk":          {load.Request{URL: raw(t, says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12"))}, load.Cut, "EOF"},
		"closed before the last one": {load.Request{URL: raw(t, says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n12\r\n"))}, load.Cut, "EOF"},
		"reset in the body":          {load.Request{URL: raw(t, resets(head+"12345")), Timeout: 5 * time.Second}, load.Cut, ""},
		"no answer":                  {load.Request{URL: silent, Timeout: 50 * time.Millisecond}, load.Timeout, "timeout"},
		"no answer, WebSocket":       {load.Request{URL: strings.Replace(silent, "http", "ws", 1), Timeout: 50 * time.Millisecond}, load.Timeout, "timeout"},
		"no end of the answer":       {load.Request{URL: raw(t, func(c *net.TCPConn, r *bufio.Reader) { io.WriteString(c, head+"1"); r.Peek(1) }), Timeout: 50 * time.Millisecond}, load.Timeout, "timeout"},
		"status":                     {load.Request{URL: raw(t, says("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"))}, load.Status, ""},
		"no HTTP":                    {load.Request{URL: raw(t, says("SSH-2.0-OpenSSH\r\n"))}, load.Protocol, "malformed"},
		"header without end":         {load.Request{URL: raw(t, says("HTTP/1.1 200 OK\r\nA: "+strings.Repeat("a", 2<<20)))}, load.Protocol, "header is larger than 1 MiB"},
		"more than the answer":       {load.Request{URL: raw(t, says(head+"1234567890HTTP/1.1 200 OK\r\n\r\n"))}, load.Protocol, "bytes after the answer's end"},
		"switches unasked":           {load.Request{URL: raw(t, says("HTTP/1.1 101 Switching Protocols\r\n\r\n"))}, load.Protocol, "unasked"},
		"no HTTP/2":                  {load.Request{URL: raw(t, says("HTTP/1.1 400 Bad Request\r\n\r\n")), Major: 2, Timeout: 5 * time.Second}, load.Protocol, ""},
		"no stamp in an event":       {load.Request{URL: stamps.URL, Events: true, Stamped: true}, load.Content, "does not begin with a Unix time"},
		"no WebSocket":               {load.Request{URL: strings.Replace(plain.URL, "http", "ws", 1)}, load.Status, "want 101, got 200"},
		"wrong key of a WebSocket":   {load.Request{URL: strings.Replace(raw(t, says("HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: no\r\n\r\n")), "http", "ws", 1)}, load.Protocol, "Sec-WebSocket-Accept"},
		"template that fails later":  {load.Request{URL: plain.URL, Template: `{{if .ContextTokens}}{{else}}{{index "" 5}}{{end}}`}, load.Body, "index"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			o := run(t, test.req, times(1))
			r := o.records[0]
			if r.Error != test.want || !strings.Contains(r.Detail, test.detail) || o.Failed != 1 || o.Errors[test.want] == nil {
				t.Errorf("got class %q, %q, errors %v, want %q, %q", r.Error, r.Detail, o.Errors, test.want, test.detail)
			}
			if o.Latency != nil || o.FailedAfter == nil {
				t.Error("a failed request is in the latencies")
			}
		})
	}
}

func TestHTTP2StreamsFail(t *testing.T) {
	tests := map[string]struct {
		begins bool
		want   load.Class
	}{"before the answer": {false, load.Reset}, "in the answer": {true, load.Cut}}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := serve2(t, func(w http.ResponseWriter, _ *http.Request) {
				if test.begins {
					fmt.Fprint(w, "begun")
					w.(http.Flusher).Flush()
				}
				panic(http.ErrAbortHandler)
			})
			if o := run(t, load.Request{URL: s.URL, Major: 2}, times(1)); o.Errors[test.want] == nil {
				t.Errorf("got %+v, want %s", o.records[0], test.want)
			}
		})
	}
}

// A server may end connections that wait for work whenever it likes.
func TestAConnectionClosedWhileIdleIsNoFailure(t *testing.T) {
	url := raw(t, func(c *net.TCPConn, _ *bufio.Reader) {
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		c.Close()
	})
	plan := times(5)
	plan.Think = 200 * time.Millisecond // in which the end of the connection arrives
	o := run(t, load.Request{URL: url}, plan)
	if o.Failed > 0 || o.Connections != 5 {
		t.Errorf("got %d failed over %d connections, want none over 5: %v", o.Failed, o.Connections, o.Errors)
	}
}

func TestProvisionalAnswersAreNotTheAnswer(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusTeapot)
	})
	if o := run(t, load.Request{URL: s.URL}, times(2)); o.Statuses[418] != 2 || len(o.Statuses) != 1 || o.Connections != 1 {
		t.Errorf("got %v over %d connections, want 418 twice over one", o.Statuses, o.Connections)
	}
	s = serve(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "100") })
	if o := run(t, load.Request{URL: s.URL, Method: "HEAD"}, times(2)); o.Succeeded != 2 || o.BytesIn != 0 || o.Connections != 1 {
		t.Errorf("HEAD: got %d succeeded, %d bytes, %v", o.Succeeded, o.BytesIn, o.Errors)
	}
}

func TestFailuresAreCountedBesideTheRest(t *testing.T) {
	n := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if n++; n%4 == 0 {
			w.WriteHeader(http.StatusBadGateway)
		}
	}))
	defer s.Close()
	o := run(t, load.Request{URL: s.URL}, times(40))
	if o.Succeeded != 30 || o.Failed != 10 || o.Errors[load.Status].Count != 10 || o.Errors[load.Status].Example != "status 502" || o.Latency.Count != 30 || o.FailedAfter.Count != 10 {
		t.Errorf("got %+v", o.Summary)
	}
	if !strings.Contains(strings.Join(o.Notes, "\n"), "10 failed requests are not in the latencies") {
		t.Errorf("got notes %q", o.Notes)
	}
}
