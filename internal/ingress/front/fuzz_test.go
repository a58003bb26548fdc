package front_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// read is what a request is to those who have read it.
func read(r *http.Request, body []byte) string {
	h := maps.Clone(r.Header)
	for _, name := range []string{"Transfer-Encoding", "Trailer", "Content-Length"} { // in fields of the request
		delete(h, name)
	}
	var fields []string
	for _, name := range slices.Sorted(maps.Keys(h)) {
		fields = append(fields, fmt.Sprintf("%s: %q", name, h[name]))
	}
	return fmt.Sprintf("%s %s %q %d %q %q", r.Method, r.RequestURI, r.Host, r.ContentLength, body, fields)
}

// byNetHTTP reads requests as net/http does, up to the first that it refuses.
func byNetHTTP(given []byte) (all []string) {
	in := bufio.NewReader(bytes.NewReader(given))
	for {
		for { // empty lines before a request, which net/http's server does not want, and the RFC wants to be ignored
			b, err := in.Peek(1)
			if err != nil || b[0] != '\r' && b[0] != '\n' {
				break
			}
			in.Discard(1)
		}
		r, err := http.ReadRequest(in)
		if err != nil {
			return all
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return all
		}
		all = append(all, read(r, body))
	}
}

// Whatever comes, what reaches the handler is what net/http would have read, or the beginning of it: the server may be
// stricter, but it sees no request where net/http sees none, and none that is different.
func FuzzServer(f *testing.F) {
	for _, seed := range []string{
		"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
		"\r\nPOST /a?b=c HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nabGET http://x/ HTTP/1.0\nHost: h\n\n",
		"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: X-A\r\n\r\n2;a=b\r\nab\r\n0\r\nX-A: 1\r\n\r\nGET /next HTTP/1.1\r\nHost: h\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nHost: h\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n c\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: h\r\nConnection: close, x\r\n\r\n",
		"GET //a HTTP/1.1\r\nHost: [::1]:80\r\nExpect: 100-continue\r\n\r\n",
		"CONNECT %0 HTTP/1.0\n\n",
		"CONNECT a:1 HTTP/1.1\r\nHost: h\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab",
		"POST / HTTP/1.0\nContent-Length:2\nContent-Length:02\n\nab",
	} {
		f.Add([]byte(seed))
	}
	var mu sync.Mutex
	var got []string
	s := serve(f, func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 1 {
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		got = append(got, read(r, body))
	}, nil)
	f.Fuzz(func(t *testing.T, given []byte) {
		conn, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		mu.Lock()
		got = nil
		mu.Unlock()
		conn.Write(given)
		conn.(*net.TCPConn).CloseWrite()
		if _, err := io.Copy(io.Discard, conn); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Fatal(err)
		}
		mu.Lock()
		defer mu.Unlock()
		want := byNetHTTP(given)
		if len(got) > len(want) || !slices.Equal(got, want[:len(got)]) {
			t.Errorf("%q\ngot  %q\nwant %q, or the first of them", given, got, want)
		}
	})
}
