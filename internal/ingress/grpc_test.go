package ingress_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"penstock/internal/ingress"
	"penstock/internal/link"
	"penstock/internal/resource"
)

// grpcApp is a replica that answers each message with the same one, and does what a method's name says.
func grpcApp(t testing.TB, options ...grpc.ServerOption) (addr string, server *grpc.Server, gone chan error) {
	t.Helper()
	gone = make(chan error, 10)
	server = grpc.NewServer(append(options, grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		method, _ := grpc.MethodFromServerStream(stream)
		md, _ := metadata.FromIncomingContext(stream.Context())
		stream.SetTrailer(metadata.Pairs("x-trailer", "yes", "x-from", md.Get("x-forwarded-for")[0], "x-bin-bin", "\x00\xff"))
		switch method {
		case "/app/refuse":
			return status.Error(codes.PermissionDenied, "not für you\n100%")
		case "/app/wait":
			if err := stream.SendHeader(metadata.Pairs("x-header", "early")); err != nil {
				return err
			}
			<-stream.Context().Done()
			gone <- stream.Context().Err()
			return stream.Context().Err()
		}
		for n := 0; ; n++ {
			var m wrapperspb.BytesValue
			if err := stream.RecvMsg(&m); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			if err := stream.SendMsg(&m); err != nil {
				return err
			}
			if method == "/app/three" && n == 2 {
				return status.Error(codes.OutOfRange, "three is all")
			}
		}
	}))...)
	ln := listenAsReplica(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(ln) // ends with Stop
	}()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	return ln.Addr().String(), server, gone
}

func grpcClient(t testing.TB, addr string, creds credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+host, grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(32<<20)),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func transport(table link.Table, as resource.Transport) link.Table {
	for i := range table.Routes {
		table.Routes[i].Transport = as
	}
	return table
}

var bidi = &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}

func TestGRPC(t *testing.T) {
	secure := credentials.NewTLS(&tls.Config{InsecureSkipVerify: true, ServerName: host})
	for name, way := range map[string]struct {
		transport resource.Transport
		creds     credentials.TransportCredentials
	}{
		"TLS, http2":                      {resource.TransportHTTP2, secure},
		"TLS, auto":                       {resource.TransportAuto, secure},
		"in the clear by prior knowledge": {resource.TransportHTTP2, insecure.NewCredentials()},
	} {
		t.Run(name, func(t *testing.T) {
			var rec records
			f := serve(t, ingress.Config{Observe: rec.observe})
			addr, _, gone := grpcApp(t)
			table := transport(replicas(addr), way.transport)
			table.Certificates = []link.Certificate{certificate(t, host)}
			f.Apply(table)
			front := f.plain
			if way.creds == secure {
				front = f.secure
			}
			conn := grpcClient(t, front, way.creds)

			var got wrapperspb.BytesValue
			var header, trailer metadata.MD
			large := wrapperspb.Bytes(make([]byte, 3<<20))
			if err := conn.Invoke(t.Context(), "/app/echo", large, &got, grpc.Header(&header), grpc.Trailer(&trailer)); err != nil || len(got.Value) != 3<<20 {
				t.Fatalf("unary: got %d bytes, %v, want %d", len(got.Value), err, 3<<20)
			}
			if trailer.Get("x-trailer")[0] != "yes" || trailer.Get("x-from")[0] != "127.0.0.1" || trailer.Get("x-bin-bin")[0] != "\x00\xff" {
				t.Errorf("trailers: got %v", trailer)
			}

			// A response of trailers only.
			err := conn.Invoke(t.Context(), "/app/refuse", wrapperspb.Bytes(nil), &got)
			if s := status.Convert(err); s.Code() != codes.PermissionDenied || s.Message() != "not für you\n100%" {
				t.Errorf("refused: got %v", err)
			}

			// Both ways at once, and a status after messages.
			stream, err := conn.NewStream(t.Context(), bidi, "/app/three")
			if err != nil {
				t.Fatal(err)
			}
			for i := range 3 {
				if err := stream.SendMsg(wrapperspb.Bytes(fmt.Append(nil, i))); err != nil {
					t.Fatal(err)
				}
				if err := stream.RecvMsg(&got); err != nil || string(got.Value) != fmt.Sprint(i) {
					t.Fatalf("message %d: got %q, %v", i, got.Value, err)
				}
			}
			if err := stream.RecvMsg(&got); status.Code(err) != codes.OutOfRange || stream.Trailer().Get("x-trailer")[0] != "yes" {
				t.Errorf("end: got %v, %v, want OutOfRange with a trailer", err, stream.Trailer())
			}

			// A header before any message, and a deadline that the replica hears of.
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			if stream, err = conn.NewStream(ctx, bidi, "/app/wait"); err != nil {
				t.Fatal(err)
			}
			if header, err = stream.Header(); err != nil || header.Get("x-header")[0] != "early" {
				t.Errorf("header: got %v, %v", header, err)
			}
			if err := stream.RecvMsg(&got); status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("got %v, want DeadlineExceeded", err)
			}
			receive(t, "the replica hears of the deadline", gone)

			until(t, "all places are free", func() bool { return len(f.Report().InFlight) == 0 })
			if r := rec.last(t, 4); r.Proto != "HTTP/2.0" || r.Replica != "r0" || r.Attempts != 1 {
				t.Errorf("record: got %+v", r)
			}
			if s := f.Stats(); s.Dialled != 1 || s.Reused != 3 {
				t.Errorf("got %d connections to the replica for 4 calls, and %d calls on an open one, want 1 and 3", s.Dialled, s.Reused)
			}
		})
	}
}

// Whatever keeps a call from a replica is a status of gRPC's, in a response of trailers only.
func TestGRPCWithoutReplica(t *testing.T) {
	none := replicas()
	none.Revisions[0].Failed = "the image ends with code 1 & 100 %"
	full := replicas()
	set(full, func(s *resource.Settings) { s.QueueLimit = 0 })
	old := transport(replicas(raw(t, func(conn net.Conn, r *bufio.Reader) {
		io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
		io.Copy(io.Discard, r) // a connection that is closed with unread bytes loses what it has said
	})), resource.TransportHTTP2)
	closed := listen(t)
	closed.Close()
	for name, test := range map[string]struct {
		table link.Table
		code  codes.Code
		text  string
	}{
		"no such app":                       {link.Table{}, codes.Unimplemented, "stopped or does not exist"},
		"a revision that cannot start":      {none, codes.Unavailable, "no replica of this app can be started"},
		"a full waiting room":               {full, codes.Unavailable, "0 requests wait"},
		"a replica that takes nothing":      {transport(replicas(closed.Addr().String()), resource.TransportHTTP2), codes.Unavailable, "Connection refused"},
		"a replica that speaks HTTP/1 only": {old, codes.Unavailable, "protocol error"},
	} {
		t.Run(name, func(t *testing.T) {
			f := serve(t, ingress.Config{})
			f.Apply(test.table)
			var got wrapperspb.BytesValue
			err := grpcClient(t, f.plain, insecure.NewCredentials()).Invoke(t.Context(), "/app/echo", wrapperspb.Bytes(nil), &got)
			if s := status.Convert(err); s.Code() != test.code || !strings.Contains(s.Message(), test.text) {
				t.Errorf("got %v, want %v with %q", err, test.code, test.text)
			}
		})
	}
}

// A replica that ends in order takes no more streams, and calls that it did not take go elsewhere; those it took end.
func TestGRPCReplicaThatEnds(t *testing.T) {
	f := serve(t, ingress.Config{})
	first, server, _ := grpcApp(t)
	f.Apply(transport(replicas(first), resource.TransportHTTP2))
	conn := grpcClient(t, f.plain, insecure.NewCredentials())
	stream, err := conn.NewStream(t.Context(), bidi, "/app/echo")
	if err != nil {
		t.Fatal(err)
	}
	var got wrapperspb.BytesValue
	exchange := func(text string) {
		t.Helper()
		if err := stream.SendMsg(wrapperspb.Bytes([]byte(text))); err != nil {
			t.Fatal(err)
		}
		if err := stream.RecvMsg(&got); err != nil || string(got.Value) != text {
			t.Fatalf("got %q, %v, want %q", got.Value, err, text)
		}
	}
	exchange("before")
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		server.GracefulStop()
	}()
	second, _, _ := grpcApp(t)
	table := transport(replicas(first, second), resource.TransportHTTP2)
	f.Apply(table)
	for range 20 {
		if err := conn.Invoke(t.Context(), "/app/echo", wrapperspb.Bytes([]byte("x")), &got); err != nil {
			t.Fatalf("a call while a replica ends: %v", err)
		}
	}
	exchange("after")
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(&got); !errors.Is(err, io.EOF) {
		t.Errorf("end of the stream: got %v, want EOF", err)
	}
	<-stopped
}

// A call that a replica breaks off has a status, not just an end.
func TestGRPCReplicaThatBreaksOff(t *testing.T) {
	f := serve(t, ingress.Config{})
	addr, server, _ := grpcApp(t)
	f.Apply(transport(replicas(addr), resource.TransportHTTP2))
	stream, err := grpcClient(t, f.plain, insecure.NewCredentials()).NewStream(t.Context(), bidi, "/app/wait")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Header(); err != nil {
		t.Fatal(err)
	}
	server.Stop()
	var got wrapperspb.BytesValue
	if err := stream.RecvMsg(&got); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "connection termination") {
		t.Errorf("got %v, want Unavailable with the reason", err)
	}
}

// More calls at a time than a connection carries get a second connection, not an error.
func TestMoreStreamsThanAConnectionCarries(t *testing.T) {
	f := serve(t, ingress.Config{})
	addr, _, gone := grpcApp(t, grpc.MaxConcurrentStreams(2))
	f.Apply(transport(replicas(addr), resource.TransportHTTP2))
	conn := grpcClient(t, f.plain, insecure.NewCredentials())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 5 {
		stream, err := conn.NewStream(ctx, bidi, "/app/wait")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Header(); err != nil {
			t.Fatal(err)
		}
	}
	if n := f.Report().InFlight["r0"]; n != 5 {
		t.Errorf("got %d calls in flight, want 5", n)
	}
	cancel()
	for range 5 {
		receive(t, "a call that ends", gone)
	}
}

// What is not gRPC takes the same way, whatever the client speaks.
func TestHTTP2ToReplicas(t *testing.T) {
	release := make(chan struct{})
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	protocols.SetHTTP2(true)
	ln := listenAsReplica(t)
	server := &http.Server{Protocols: protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Seen", fmt.Sprint(r.Proto, " ", r.Host, " ", r.RequestURI, " ", r.Header.Get("User-Agent"), " ", r.Header.Get("X-Forwarded-Proto"), " ", r.ContentLength))
		switch r.URL.Path {
		case "/hints":
			h.Set("Link", "</style.css>")
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusOK)
		case "/slow":
			w.(http.Flusher).Flush()
			<-release
			io.WriteString(w, "late")
		case "/cut":
			io.WriteString(w, "half")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		default:
			n, err := io.Copy(io.Discard, r.Body)
			w.(http.Flusher).Flush() // a response with a length has no trailer in HTTP/1.1
			h.Set(http.TrailerPrefix+"X-Sum", fmt.Sprint(n, err, r.Trailer))
			io.WriteString(w, "ok")
		}
	})}
	go server.Serve(ln)
	t.Cleanup(func() { server.Close() })
	f := serve(t, ingress.Config{})
	f.Apply(transport(replicas(ln.Addr().String()), resource.TransportHTTP2))

	resp, body := f.get(t, "/a//b%2Fc?q=%20;x")
	want(t, resp, body, 200, "ok")
	if seen := resp.Header.Get("X-Seen"); seen != "HTTP/2.0 app.test /a//b%2Fc?q=%20;x Go-http-client/1.1 http 0" {
		t.Errorf("the replica saw %q", seen)
	}
	resp, body = f.do(t, request(t, http.MethodPut, "//x", strings.NewReader(strings.Repeat("y", 1<<20))))
	want(t, resp, body, 200, "ok")
	if seen := resp.Header.Get("X-Seen"); !strings.Contains(seen, "//x") || !strings.HasSuffix(seen, " 1048576") {
		t.Errorf("the replica saw %q", seen)
	}
	if sum := resp.Trailer.Get("X-Sum"); sum != "1048576 <nil> map[]" {
		t.Errorf("trailer: got %q", sum)
	}

	r := request(t, http.MethodPost, "/trailer", io.MultiReader(strings.NewReader("body")))
	r.Trailer = http.Header{"X-End": {"here"}}
	if resp, _ := f.do(t, r); resp.Trailer.Get("X-Sum") != "4 <nil> map[X-End:[here]]" {
		t.Errorf("trailer of the request: the replica saw %q", resp.Trailer.Get("X-Sum"))
	}

	_, lines := f.dial(t, "GET /hints HTTP/1.1\r\nHost: app.test\r\n\r\n")
	if line, _ := lines.ReadString('\n'); line != "HTTP/1.1 103 Early Hints\r\n" {
		t.Errorf("got %q, want 103", line)
	}
	resp, err := f.client.Do(request(t, http.MethodGet, "/slow", nil))
	if err != nil {
		t.Fatal(err) // its head comes before its body
	}
	close(release)
	if text, err := io.ReadAll(resp.Body); string(text) != "late" || err != nil {
		t.Errorf("got %q, %v", text, err)
	}
	resp.Body.Close()
	if resp, err = f.client.Do(request(t, http.MethodGet, "/cut", nil)); err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(resp.Body); string(text) != "half" || err == nil {
		t.Errorf("got %q, %v, want half and an error", text, err)
	}
	resp.Body.Close()
}
