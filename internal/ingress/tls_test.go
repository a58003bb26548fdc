package ingress_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"penstock/internal/accesslog"
	"penstock/internal/ingress"
	"penstock/internal/link"
	"penstock/internal/resource"
)

// aboutReplicas are the tests of what goes between the ingress and replicas.
var aboutReplicas = []string{
	"RequestHeaders", "ResponseHeaders", "ResponsesWithoutBody", "InterimResponsesPass", "TrailersPassBothWays",
	"EventArrivesBeforeTheNextIsSent", "BothWaysAtOnce", "EarlyResponseDuringUpload", "ExpectContinue", "WebSocket",
	"SilentTunnelEnds", "RefusedUpgrade", "RequestThatWasTaken", "PartOfAResponseIsNoReasonToRepeat",
	"ConnectionClosedBetweenRequests", "RestOfAnUnwantedBody", "UpstreamFraming", "LeftoversDoNotAnswerTheNextRequest",
	"Timeouts", "UploadThatBreaksOff", "ClientThatLeavesEndsTheUpstreamRequest", "NoRequestIsSmuggled", "HTTP2ToReplicas",
	"MoreStreamsThanAConnectionCarries", "GRPC", "GRPCReplicaThatEnds", "GRPCReplicaThatBreaksOff",
}

// Replicas that speak TLS are spoken to as others are: the same tests, with TLS in all their replicas.
func TestReplicasOverTLS(t *testing.T) {
	t.Parallel()
	if overTLS {
		t.Skip("this is the second time")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	again := exec.CommandContext(t.Context(), self, "-test.v", "-test.run=^Test("+strings.Join(aboutReplicas, "|")+")$")
	again.Env = append(os.Environ(), "PENSTOCK_TEST_REPLICAS_TLS=1")
	out, err := again.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range aboutReplicas {
		if !strings.Contains(string(out), "--- PASS: Test"+name+" ") {
			t.Errorf("Test%s did not run", name)
		}
	}
}

// How a replica's TLS begins: nobody is named and nobody looked at, and what goes on over it is agreed upon.
func TestHandshakeWithReplicas(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/last" {
			w.Header().Set("Connection", "close")
		}
		fmt.Fprintf(w, "%s %q %q %t", r.Proto, r.TLS.ServerName, r.TLS.NegotiatedProtocol, r.TLS.DidResume)
	}))
	s.EnableHTTP2 = true
	s.TLS = &tls.Config{NextProtos: []string{"h2", "http/1.1"}}
	s.StartTLS()
	t.Cleanup(s.Close)
	f := serve(t, ingress.Config{})
	table := secured(replicas(s.Listener.Addr().String()))
	f.Apply(table)
	for _, step := range []struct{ path, want string }{
		{"/", `HTTP/1.1 "" "http/1.1" false`},
		{"/last", `HTTP/1.1 "" "http/1.1" false`}, // the same connection
		{"/", `HTTP/1.1 "" "http/1.1" true`},
	} {
		resp, body := f.get(t, step.path)
		want(t, resp, body, 200, step.want)
	}
	if got := f.Stats(); got.Dialled != 2 || got.Reused != 1 {
		t.Errorf("got %+v, want 2 connections for 3 requests", got)
	}
	f.Apply(transport(table, resource.TransportHTTP2))
	resp, body := f.get(t, "/")
	want(t, resp, body, 200, `HTTP/2.0 "" "h2"`)
}

func secured(table link.Table) link.Table {
	for i := range table.Revisions {
		table.Revisions[i].TLS = true
	}
	return table
}

// What a client is told of a replica that speaks no TLS, or no HTTP/2 over it, or nothing at all. Nothing of a request
// was sent, so that each is tried for a while; and a word of the app about it holds from the next request on.
func TestReplicaWithoutTLS(t *testing.T) {
	t.Parallel()
	const start = "upstream connect error or disconnect/reset before headers. retried and the latest reset reason: "
	plain := app(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "in the clear") })
	old := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})) // HTTP/1.1 only
	t.Cleanup(old.Close)
	silent := raw(t, func(conn net.Conn, r *bufio.Reader) { io.Copy(io.Discard, r) })
	for name, test := range map[string]struct {
		table link.Table
		want  string
	}{
		"in the clear": {secured(replicas(plain)), "remote connection failure, transport failure reason: TLS_error: tls: first record does not look like a TLS handshake"},
		"no HTTP/2":    {transport(secured(replicas(old.Listener.Addr().String())), resource.TransportHTTP2), "remote connection failure, transport failure reason: TLS_error: "},
		"nothing":      {secured(replicas(silent)), "connection timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			var rec records
			limit := time.Minute
			if name == "nothing" {
				limit = 100 * time.Millisecond
			}
			f := serve(t, ingress.Config{Observe: rec.observe, DialTimeout: limit})
			f.Apply(test.table)
			resp, body := f.do(t, request(t, http.MethodPost, "/", strings.NewReader("body")))
			want(t, resp, body, 503, start+test.want)
			if got := rec.last(t, 1); got.Flags != accesslog.FlagConnectFailure || got.Attempts < 2 {
				t.Errorf("flags %v after %d tries, want UF after some", got.Flags, got.Attempts)
			}
		})
	}
	t.Run("and the other way about", func(t *testing.T) {
		f := serve(t, ingress.Config{})
		f.Apply(replicas(plain))
		for range 2 {
			resp, body := f.get(t, "/")
			want(t, resp, body, 200, "in the clear")
			f.Apply(secured(replicas(plain)))
			resp, body = f.get(t, "/")
			want(t, resp, body, 503, "TLS_error")
			f.Apply(replicas(plain))
		}
	})
}

// A client that leaves while its replica's handshake lasts takes its place with it.
func TestClientThatLeavesDuringAHandshake(t *testing.T) {
	began := make(chan struct{})
	f := serve(t, ingress.Config{DialTimeout: time.Minute})
	ln := listen(t)
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		hello := tls.Server(conn, &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			close(began)
			io.Copy(io.Discard, conn) // until the ingress gives up
			return nil, io.EOF
		}})
		hello.Handshake()
	}()
	f.Apply(secured(replicas(ln.Addr().String())))
	conn, _ := f.dial(t, "GET / HTTP/1.1\r\nHost: app.test\r\n\r\n")
	receive(t, "the handshake begins", began)
	conn.Close()
	until(t, "nothing is in flight", func() bool { return len(f.Report().InFlight) == 0 })
}
