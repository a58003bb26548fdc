package ingress_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"penstock/internal/ingress"
	"penstock/internal/link"
	"penstock/internal/resource"
)

// A connection counts from its first request to its end, idle or not, for the revision that it asked last, if that has a
// rule about connections.
func TestOpenConnections(t *testing.T) {
	hello := app(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })
	f := serve(t, ingress.Config{})
	rev := func(id, addr string) link.Revision {
		return link.Revision{ID: id, Settings: settings(), Replicas: []link.Replica{{Name: id + "-r", Addr: addr}}}
	}
	table := set(link.Table{Epoch: "test", Version: 1, Revisions: []link.Revision{rev("a", hello), rev("b", echoes(t)), rev("c", hello)}},
		func(s *resource.Settings) { s.HTTPMetric = resource.MetricConnections })
	table.Revisions[2].Settings.HTTPMetric = resource.MetricInFlight
	for _, r := range table.Revisions {
		table.Routes = append(table.Routes, link.Route{
			Host: r.ID + ".test", App: "/" + r.ID, External: true, AllowInsecure: true, Targets: []link.Target{{Revision: r.ID, Weight: 100}},
		})
	}
	f.Apply(table)
	wants := func(when string, a, b int) {
		t.Helper()
		until(t, when, func() bool {
			loads := f.Traffic().Revisions
			return loads["a"].Open == a && loads["b"].Open == b && loads["c"].Open == 0
		})
	}
	ask := func(conn net.Conn, r *bufio.Reader, host string) {
		t.Helper()
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
	}
	idle, r := f.dial(t, "")
	other, others := f.dial(t, "")
	wants("nobody has asked anything", 0, 0)
	ask(idle, r, "a.test")
	ask(other, others, "a.test")
	ask(other, others, "a.test")
	wants("two are idle", 2, 0)
	if got := f.Report().Loads["a"].Open; got != 2 {
		t.Errorf("the report: got %d connections, want 2", got)
	}
	ask(other, others, "c.test")
	wants("one asks another app now", 1, 0)
	ask(other, others, "a.test")
	wants("and comes back", 2, 0)

	socket, _ := f.dial(t, strings.Replace(upgrade, host, "b.test", 1))
	wants("a WebSocket is open", 2, 1)
	socket.Close()
	wants("the WebSocket has ended", 2, 0)

	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	client := clientTo(t, f.plain)
	client.Transport.(*http.Transport).Protocols = &protocols
	for range 3 {
		resp, err := client.Get("http://a.test/")
		if err != nil || resp.ProtoMajor != 2 {
			t.Fatalf("over HTTP/2: %v, %v", resp, err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	wants("one of HTTP/2 counts once", 3, 0)
	client.CloseIdleConnections()
	wants("it has ended", 2, 0)
	idle.Close()
	other.Close()
	wants("all have ended", 0, 0)
}
