package ingress_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"penstock/internal/ingress"
)

// What a replica sends is passed on whole, refused, or visibly cut. Never is part of one response read as another.
func TestUpstreamFraming(t *testing.T) {
	const refused = "upstream connect error or disconnect/reset before headers. reset reason: protocol error"
	const ended = "upstream connect error or disconnect/reset before headers. reset reason: connection termination"
	const cut = -1
	many := strings.Repeat("A: b\r\n", 101)
	tests := map[string]struct {
		response string
		status   int // or cut
		body     string
	}{
		"length":                        {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, "ok"},
		"length twice the same":         {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", 200, "ok"},
		"until the end":                 {"HTTP/1.1 200 OK\r\n\r\nok", 200, "ok"},
		"HTTP/1.0":                      {"HTTP/1.0 200 OK\r\n\r\nok", 200, "ok"},
		"no reason":                     {"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", 200, "ok"},
		"lone LF in the head":           {"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", 200, "ok"},
		"chunks":                        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n1\r\no\r\n1;x=\"y\"\r\nk\r\n0\r\n\r\n", 200, "ok"},
		"more than was asked":           {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", 200, "ok"},
		"204 with a body":               {"HTTP/1.1 204 No\r\nContent-Length: 4\r\n\r\nevil", 204, ""},
		"304 with a length":             {"HTTP/1.1 304 No\r\nContent-Length: 4\r\n\r\n", 304, ""},
		"a 100 first":                   {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, "ok"},
		"length and coding":             {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 502, refused},
		"coding in HTTP/1.0":            {"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 502, refused},
		"two lengths":                   {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", 502, refused},
		"a list of lengths":             {"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", 502, refused},
		"negative length":               {"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok", 502, refused},
		"signed length":                 {"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", 502, refused},
		"length beyond 63 bits":         {"HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775808\r\n\r\nok", 502, refused},
		"empty length":                  {"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nok", 502, refused},
		"another coding":                {"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 502, refused},
		"coding twice":                  {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 502, refused},
		"folded field":                  {"HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 2\r\n\r\nok", 502, refused},
		"space before the colon":        {"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok", 502, refused},
		"no colon":                      {"HTTP/1.1 200 OK\r\nContent-Length 2\r\n\r\nok", 502, refused},
		"no name":                       {"HTTP/1.1 200 OK\r\n: 2\r\n\r\nok", 502, refused},
		"lone CR in a value":            {"HTTP/1.1 200 OK\r\nA: b\rSet-Cookie: x\r\n\r\nok", 502, refused},
		"zero byte in a value":          {"HTTP/1.1 200 OK\r\nA: b\x00\r\n\r\nok", 502, refused},
		"another protocol":              {"SSH-2.0-OpenSSH_9.2\r\n\r\n", 502, refused},
		"HTTP/2":                        {"HTTP/2.0 200 OK\r\n\r\n", 502, refused},
		"short status":                  {"HTTP/1.1 20\r\n\r\n", 502, refused},
		"long status":                   {"HTTP/1.1 2000 OK\r\n\r\n", 502, refused},
		"status 099":                    {"HTTP/1.1 099 OK\r\n\r\n", 502, refused},
		"upgrade that nobody asked for": {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", 502, refused},
		"101 fields":                    {"HTTP/1.1 200 OK\r\n" + many + "\r\n", 502, refused},
		"a head of 70 KiB":              {"HTTP/1.1 200 OK\r\nA: " + strings.Repeat("b", 70<<10) + "\r\n\r\n", 502, refused},
		"half a head":                   {"HTTP/1.1 200 OK\r\nA: b", 503, ended},
		"cut body":                      {"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok", cut, "ok"},
		"cut chunk":                     {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nok", cut, "ok"},
		"no last chunk":                 {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", cut, "ok"},
		"no end of the trailer":         {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nA: b\r\n", cut, "ok"},
		"chunk longer than it says":     {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokay\r\n0\r\n\r\n", cut, "ok"},
		"chunk size without digits":     {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n;x\r\n\r\n", cut, "ok"},
		"chunk size 0x2":                {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x2\r\nok\r\n0\r\n\r\n", cut, ""},
		"chunk size beyond 60 bits":     {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000002\r\nok\r\n0\r\n\r\n", cut, ""},
		"space in a chunk size":         {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2 \r\nok\r\n0\r\n\r\n", cut, ""},
		"lone LF after a chunk size":    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\nok\r\n0\r\n\r\n", cut, ""},
		"lone CR in an extension":       {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a\rb\r\nok\r\n0\r\n\r\n", cut, ""},
		"endless extension":             {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;" + strings.Repeat("a", 5000) + "\r\nok\r\n0\r\n\r\n", cut, ""},
		"folded trailer":                {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nA: b\r\n c\r\n\r\n", cut, "ok"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := serve(t, ingress.Config{})
			f.Apply(replicas(says(t, test.response)))
			resp, err := f.client.Do(request(t, http.MethodPost, "/", nil))
			if err != nil {
				if test.status == cut && test.body == "" {
					return
				}
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if test.status == cut {
				if string(body) != test.body || err == nil {
					t.Errorf("got %q, %v, want %q and an error", body, err, test.body)
				}
				return
			}
			if resp.StatusCode != test.status || string(body) != test.body || err != nil {
				t.Errorf("got %d %q %v, want %d %q", resp.StatusCode, body, err, test.status, test.body)
			}
		})
	}
}

// A connection on which more came than was asked for is not used again.
func TestLeftoversDoNotAnswerTheNextRequest(t *testing.T) {
	f := serve(t, ingress.Config{})
	f.Apply(replicas(raw(t, func(conn net.Conn, r *bufio.Reader) {
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			text := "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + req.URL.Path
			io.WriteString(conn, text+"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
		}
	})))
	for range 20 {
		for _, path := range []string{"/a", "/b"} {
			resp, body := f.get(t, path)
			if resp.StatusCode != 200 || body != path {
				t.Fatalf("got %d %q, want 200 %q", resp.StatusCode, body, path)
			}
		}
	}
}

// What a client sends is one request or none to the replica. Each case is followed by a request that must not be
// taken for anything else.
func TestClientFraming(t *testing.T) {
	tests := map[string]struct {
		request string
		reaches string // the replica, as "METHOD target body"; "": nothing
		status  string
	}{
		"length and coding": {"POST /a HTTP/1.1\r\nHost: app.test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n" +
			"0\r\n\r\nGET /evil HTTP/1.1\r\nHost: app.test\r\n\r\n", "", "400"},
		"two lengths":        {"POST /a HTTP/1.1\r\nHost: app.test\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nbody!", "", "400"},
		"bad length":         {"POST /a HTTP/1.1\r\nHost: app.test\r\nContent-Length: 4x\r\n\r\nbody", "", "400"},
		"unknown coding":     {"POST /a HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "", "501"},
		"bad chunk":          {"POST /a HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nbody\r\n0\r\n\r\n", "", "400"},
		"space before colon": {"GET /a HTTP/1.1\r\nHost: app.test\r\nA : b\r\n\r\n", "", "400"},
		"two hosts":          {"GET /a HTTP/1.1\r\nHost: app.test\r\nHost: other.test\r\n\r\n", "", "400"},
		"absolute form":      {"GET http://app.test/a?b HTTP/1.1\r\nHost: other.test\r\n\r\n", "GET /a?b ", "200"},
		"CONNECT":            {"CONNECT app.test:80 HTTP/1.1\r\nHost: app.test\r\n\r\n", "", "405"},
		"hidden length":      {"POST /a HTTP/1.1\r\nHost: app.test\r\nConnection: Content-Length\r\nContent-Length: 4\r\n\r\nbody", "POST /a body", "200"},
		"chunks":             {"POST /a HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n", "POST /a body", "200"},
		"upgrade to HTTP/2":  {"GET /a HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n", "GET /a ", "200"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := make(chan string, 10)
			f := serve(t, ingress.Config{})
			f.Apply(replicas(app(t, func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err == nil {
					got <- r.Method + " " + r.RequestURI + " " + string(body)
				}
				if r.Header.Get("Upgrade") != "" {
					t.Errorf("an upgrade reached the replica: %v", r.Header)
				}
			})))
			_, r := f.dial(t, test.request)
			line, _ := r.ReadString('\n')
			if !strings.HasPrefix(line, "HTTP/1.1 "+test.status) {
				t.Errorf("got %q, want %s", line, test.status)
			}
			f.get(t, "/next")
			if test.reaches != "" {
				if reached := receive(t, "request", got); reached != test.reaches {
					t.Errorf("the replica got %q, want %q", reached, test.reaches)
				}
			}
			if reached := receive(t, "request", got); reached != "GET /next " {
				t.Errorf("the replica got %q, want only the next request", reached)
			}
		})
	}
}
