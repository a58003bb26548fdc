package resolver_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"penstock/internal/link"
	"penstock/internal/resolver"
)

// serving is a resolver on loopback, whose upstream is another of the test's own.
type serving struct {
	*resolver.Resolver
	address   string
	upstreams atomic.Pointer[[]string]
	forwarded atomic.Int64
}

// serve starts a resolver. Its upstream says 192.0.2.1 to everything below example.com and NXDOMAIN to the rest.
func serve(t testing.TB) *serving {
	t.Helper()
	s := &serving{}
	upstream := listen(t)
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		s.forwarded.Add(1)
		m := new(dns.Msg)
		m.SetReply(q)
		name := q.Question[0].Name
		switch {
		case name == "large.example.com.":
			for i := range 100 {
				m.Answer = append(m.Answer, record(t, fmt.Sprintf("%s 60 IN A 192.0.2.%d", name, i)))
			}
			if w.LocalAddr().Network() == "udp" {
				m.Truncate(dns.MinMsgSize)
			}
		case strings.HasSuffix(name, ".example.com."):
			m.Answer = []dns.RR{record(t, name+" 60 IN A 192.0.2.1")}
		default:
			m.Rcode = dns.RcodeNameError
		}
		w.WriteMsg(m)
	})
	started := make(chan struct{}, 2)
	for _, server := range []*dns.Server{{PacketConn: upstream.packets}, {Listener: upstream.connections}} {
		server.Handler, server.NotifyStartedFunc = handler, func() { started <- struct{}{} }
		go server.ActivateAndServe()
		t.Cleanup(func() { server.Shutdown() })
	}
	<-started
	<-started
	s.upstreams.Store(&[]string{upstream.packets.LocalAddr().String()})
	s.Resolver = resolver.New(resolver.Config{
		Upstreams: func() ([]string, error) { return *s.upstreams.Load(), nil },
		Log:       slog.New(slog.DiscardHandler),
	})
	own := listen(t)
	s.address = own.packets.LocalAddr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, own.packets, own.connections) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return s
}

type listeners struct {
	packets     net.PacketConn
	connections net.Listener
}

// listen takes one port for both.
func listen(t testing.TB) listeners {
	t.Helper()
	for range 20 {
		connections, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		packets, err := net.ListenPacket("udp", connections.Addr().String())
		if err != nil {
			connections.Close()
			continue
		}
		return listeners{packets, connections}
	}
	t.Fatal("no port is free for both UDP and TCP")
	return listeners{}
}

func record(t testing.TB, text string) dns.RR {
	r, err := dns.NewRR(text)
	if err != nil {
		t.Error(err)
	}
	return r
}

// table has two environments, in the first of which everybody on loopback is.
func table() link.Table {
	return link.Table{
		Environments: []link.Environment{
			{ID: "/blue", Domain: "penstock.localhost", Addresses: netip.MustParsePrefix("127.0.0.0/8"), Gateway: netip.MustParseAddr("10.1.0.1")},
			{ID: "/green", Domain: "green-1.penstock.localhost", Addresses: netip.MustParsePrefix("10.1.8.0/21"), Gateway: netip.MustParseAddr("10.1.8.1")},
		},
		Routes: []link.Route{
			{Host: "web.penstock.localhost", Environment: "/blue", Name: "web", External: true},
			{Host: "api.internal.penstock.localhost", Environment: "/blue", Name: "api"},
			{Host: "api--v1.internal.penstock.localhost", Environment: "/blue", Name: "api--v1"},
			{Host: "shop.green-1.penstock.localhost", Environment: "/green", Name: "shop", External: true},
			{Host: "hidden.internal.green-1.penstock.localhost", Environment: "/green", Name: "hidden"},
		},
		TCP: []link.TCPRoute{
			{Port: 6379, Environment: "/blue", Name: "redis"},
			{Port: 5432, Environment: "/green", Name: "postgres", External: true},
		},
	}
}

func (s *serving) ask(t testing.TB, network, name string, kind uint16) *dns.Msg {
	t.Helper()
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), kind)
	c := dns.Client{Net: network, Timeout: 10 * time.Second}
	m, _, err := c.Exchange(q, s.address)
	if err != nil {
		t.Fatalf("%s over %s: %v", name, network, err)
	}
	return m
}

func TestNames(t *testing.T) {
	s := serve(t)
	s.Apply(table())
	const gateway, none, nobody = "10.1.0.1", "", "NXDOMAIN"
	tests := map[string]string{
		"web":                                 gateway,
		"WEB":                                 gateway,
		"web.penstock.localhost":              gateway,
		"Web.Penstock.localhost":              gateway,
		"web.internal.penstock.localhost":     gateway,
		"api":                                 gateway,
		"api.penstock.localhost":              gateway,
		"api.internal.penstock.localhost":     gateway,
		"api--v1.penstock.localhost":          gateway,
		"api--v2.penstock.localhost":          nobody,
		"db.penstock.localhost":               nobody,
		"a.web.penstock.localhost":            nobody,
		"penstock.localhost":                  none,
		"internal.penstock.localhost":         none,
		"redis":                               gateway,
		"redis.penstock.localhost":            gateway,
		"redis.internal.penstock.localhost":   gateway,
		"postgres":                            nobody,
		"postgres.green-1.penstock.localhost": nobody, // its port is not open here
		"shop":                                nobody, // another environment's, so the machine's resolvers are asked
		"shop.green-1.penstock.localhost":     gateway,
		"hidden.green-1.penstock.localhost":   nobody,
		"hidden.internal.penstock.localhost":  nobody,
		"www.example.com":                     "192.0.2.1",
		"web.penstock.localhost.example.com":  "192.0.2.1",
		"notpenstock.localhost":               nobody,
		"hidden.internal.green-1.example.com": "192.0.2.1",
	}
	for name, want := range tests {
		for _, network := range []string{"udp", "tcp"} {
			m := s.ask(t, network, name, dns.TypeA)
			got := none
			if m.Rcode != dns.RcodeSuccess {
				got = dns.RcodeToString[m.Rcode]
			}
			for _, r := range m.Answer {
				got = r.(*dns.A).A.String()
			}
			if got != want {
				t.Errorf("%s over %s: %q, want %q", name, network, got, want)
			}
			if got == gateway && m.Answer[0].Header().Ttl != 5 {
				t.Errorf("%s: TTL %d, want 5", name, m.Answer[0].Header().Ttl)
			}
			ours := strings.HasSuffix(name, ".penstock.localhost") || name == "penstock.localhost"
			if (want == none || want == nobody) && ours && (len(m.Ns) != 1 || m.Ns[0].Header().Rrtype != dns.TypeSOA) {
				t.Errorf("%s: authority %v, want the zone's SOA", name, m.Ns)
			}
		}
	}
}

func TestOwnNamesHaveNoOtherRecords(t *testing.T) {
	s := serve(t)
	s.Apply(table())
	for _, kind := range []uint16{dns.TypeAAAA, dns.TypeMX, dns.TypeTXT, dns.TypeHTTPS} {
		for _, name := range []string{"api", "api.internal.penstock.localhost"} {
			// NXDOMAIN would keep clients from using the A record.
			if m := s.ask(t, "udp", name, kind); m.Rcode != dns.RcodeSuccess || len(m.Answer) != 0 {
				t.Errorf("%s %s: %s %v, want success and nothing", name, dns.TypeToString[kind], dns.RcodeToString[m.Rcode], m.Answer)
			}
		}
	}
	if n := s.forwarded.Load(); n != 0 {
		t.Errorf("%d queries for our own names went out", n)
	}
}

func TestLargeAnswersCanBeHadOverTCP(t *testing.T) {
	s := serve(t)
	s.Apply(table())
	if m := s.ask(t, "udp", "large.example.com", dns.TypeA); !m.Truncated {
		t.Errorf("%d records over UDP, want a truncated answer", len(m.Answer))
	}
	if m := s.ask(t, "tcp", "large.example.com", dns.TypeA); len(m.Answer) != 100 {
		t.Errorf("%d records over TCP, want 100", len(m.Answer))
	}
}

func TestStrangersAreToldToAskAgain(t *testing.T) {
	s := serve(t)
	if m := s.ask(t, "udp", "web", dns.TypeA); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("without a table: %s, want SERVFAIL", dns.RcodeToString[m.Rcode])
	}
	other := table()
	other.Environments[0].Addresses = netip.Prefix{}
	s.Apply(other)
	for _, name := range []string{"web", "www.example.com"} {
		if m := s.ask(t, "udp", name, dns.TypeA); m.Rcode != dns.RcodeServerFailure {
			t.Errorf("%s from an address of no environment: %s, want SERVFAIL", name, dns.RcodeToString[m.Rcode])
		}
	}
}

func TestResolversOfTheMachineMayFail(t *testing.T) {
	s := serve(t)
	s.Apply(table())
	good := (*s.upstreams.Load())[0]
	closed := listen(t)
	dead := closed.packets.LocalAddr().String()
	closed.packets.Close()
	closed.connections.Close()
	for what, c := range map[string]struct {
		servers []string
		want    int
	}{
		"one that is not there":        {[]string{dead}, dns.RcodeServerFailure},
		"one of two that is not there": {[]string{dead, good}, dns.RcodeSuccess},
		"none":                         {nil, dns.RcodeServerFailure},
	} {
		s.upstreams.Store(&c.servers)
		if m := s.ask(t, "udp", "www.example.com", dns.TypeA); m.Rcode != c.want {
			t.Errorf("%s: %s, want %s", what, dns.RcodeToString[m.Rcode], dns.RcodeToString[c.want])
		}
		if m := s.ask(t, "udp", "web", dns.TypeA); len(m.Answer) != 1 {
			t.Errorf("%s: a name of ours has %v", what, m.Answer)
		}
	}
}

func TestResolversAreReadAgainWhenTheyChange(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	list := resolver.FromFile(path)
	if servers, err := list(); err == nil {
		t.Errorf("without a file: %v", servers)
	}
	at := time.Now().Add(-time.Hour)
	for text, want := range map[string][]string{
		"nameserver 127.0.0.53\noptions edns0\n":             {"127.0.0.53:53"},
		"search a.b\nnameserver 192.0.2.1\nnameserver ::1\n": {"192.0.2.1:53", "[::1]:53"},
		"": nil,
	} {
		at = at.Add(time.Minute)
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chtimes(path, at, at)); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if got, err := list(); err != nil || !slices.Equal(got, want) {
				t.Errorf("%q: %v, %v, want %v", text, got, err, want)
			}
		}
	}
}

func TestTablesChangeUnderLoad(t *testing.T) {
	s := serve(t)
	s.Apply(table())
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if m := s.ask(t, "udp", "web", dns.TypeA); len(m.Answer) != 1 {
						t.Errorf("got %v", m)
						return
					}
				}
			}
		})
	}
	for range 200 {
		s.Apply(table())
	}
	close(stop)
	wg.Wait()
}

func FuzzPackets(f *testing.F) {
	for _, name := range []string{"web.", "www.example.com.", "penstock.localhost."} {
		q := new(dns.Msg)
		q.SetQuestion(name, dns.TypeA)
		q.SetEdns0(4096, true)
		packet, err := q.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packet)
		f.Add(packet[:len(packet)-3])
	}
	f.Add([]byte{})
	s := serve(f)
	s.Apply(table())
	conn, err := net.Dial("udp", s.address)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { conn.Close() })
	f.Fuzz(func(t *testing.T, packet []byte) {
		if _, err := conn.Write(packet); err != nil && len(packet) < 60000 {
			t.Fatal(err)
		}
		// Whatever it was, the next one is answered.
		if m := s.ask(t, "udp", "web", dns.TypeA); len(m.Answer) != 1 {
			t.Errorf("after %x: %v", packet, m)
		}
	})
}
