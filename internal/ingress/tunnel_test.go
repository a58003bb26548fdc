package ingress_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"penstock/internal/ingress"
	"penstock/internal/resource"
)

const upgrade = "GET /ws HTTP/1.1\r\nHost: app.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n" +
	"Sec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n"

// echoes switches protocols, says hello in the same breath, and echoes.
func echoes(t testing.TB) string {
	return raw(t, func(conn net.Conn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err != nil || !strings.EqualFold(req.Header.Get("Upgrade"), "websocket") || !strings.EqualFold(req.Header.Get("Connection"), "upgrade") {
			io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
			return
		}
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: y\r\n\r\nhello ")
		io.Copy(conn, r)
		io.WriteString(conn, " bye")
	})
}

func TestWebSocket(t *testing.T) {
	var rec records
	f := serve(t, ingress.Config{Observe: rec.observe})
	f.Apply(replicas(echoes(t)))
	conn, r := f.dial(t, upgrade+"early ")
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 101 || resp.Header.Get("Sec-WebSocket-Accept") != "y" || resp.Header.Get("Upgrade") != "websocket" {
		t.Fatalf("got %d %v, want 101 with the replica's fields", resp.StatusCode, resp.Header)
	}
	buf := make([]byte, len("hello early "))
	if _, err := io.ReadFull(r, buf); string(buf) != "hello early " {
		t.Fatalf("got %q, %v", buf, err)
	}
	for range 10 {
		io.WriteString(conn, "ping")
		if _, err := io.ReadFull(r, buf[:4]); string(buf[:4]) != "ping" {
			t.Fatalf("got %q, %v, want ping", buf[:4], err)
		}
	}
	if got := f.Report().InFlight["r0"]; got != 1 {
		t.Errorf("in flight: got %d, want 1", got)
	}
	conn.(*net.TCPConn).CloseWrite() // the other half stays open
	if rest, err := io.ReadAll(r); string(rest) != " bye" || err != nil {
		t.Errorf("got %q, %v, want what came after the half-close", rest, err)
	}
	if got := rec.last(t, 1); got.Status != 101 || got.BytesIn != 46 {
		t.Errorf("record: got status %d with %d bytes in, want 101 with 46", got.Status, got.BytesIn)
	}
	if got := f.Report().InFlight["r0"]; got != 0 {
		t.Errorf("in flight: got %d, want 0", got)
	}
}

func TestSilentTunnelEnds(t *testing.T) {
	f := serve(t, ingress.Config{})
	f.Apply(set(replicas(echoes(t)), func(s *resource.Settings) { s.IdleTimeout = 50 * time.Millisecond }))
	_, r := f.dial(t, upgrade)
	if _, err := io.ReadAll(r); err != nil {
		t.Errorf("got %v, want the end", err)
	}
	until(t, "its place is free", func() bool { return len(f.Report().InFlight) == 0 })
}

func TestRefusedUpgrade(t *testing.T) {
	f := serve(t, ingress.Config{})
	f.Apply(replicas(app(t, func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "no "+r.Header.Get("Upgrade"), http.StatusForbidden)
	})))
	_, r := f.dial(t, upgrade)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	want(t, resp, string(body), 403, "no websocket")
}
