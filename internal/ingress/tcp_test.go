package ingress_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"penstock/internal/accesslog"
	"penstock/internal/ingress"
	"penstock/internal/link"
	"penstock/internal/resource"
)

// machinePorts are ports of loopback in the place of a machine's: each has another number in fact. Like a supervisor it
// holds them, and gives out copies.
type machinePorts struct {
	t testing.TB

	mu     sync.Mutex
	held   map[int]*net.TCPListener
	faults map[int]string // of ports that cannot be opened
	later  bool           // another ingress has asked since
	asked  [][]int
}

func newMachinePorts(t testing.TB) *machinePorts {
	m := &machinePorts{t: t, held: map[int]*net.TCPListener{}, faults: map[int]string{}}
	t.Cleanup(func() {
		for _, ln := range m.held {
			ln.Close()
		}
	})
	return m
}

func (m *machinePorts) Open(_ context.Context, wanted []ingress.Wanted) (all []ingress.Port, err error) {
	var ports []int
	for _, w := range wanted {
		ports = append(ports, w.Number)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.later {
		return nil, ingress.ErrLater
	}
	m.asked = append(m.asked, ports)
	for number, ln := range m.held {
		if !slices.Contains(ports, number) {
			ln.Close()
			delete(m.held, number)
		}
	}
	for i, number := range ports {
		if fault := m.faults[number]; fault != "" {
			all = append(all, ingress.Port{Wanted: wanted[i], Fault: fault})
			continue
		}
		if m.held[number] == nil {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return all, err
			}
			m.held[number] = ln.(*net.TCPListener)
		}
		f, err := m.held[number].File()
		if err != nil {
			return all, err
		}
		ln, err := net.FileListener(f)
		f.Close()
		if err != nil {
			return all, err
		}
		all = append(all, ingress.Port{Wanted: wanted[i], Listener: ln})
	}
	return all, nil
}

func (m *machinePorts) Close() {}

// addr is where a port is in fact; "" while it is closed.
func (m *machinePorts) addr(number int) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.held[number] == nil {
		return ""
	}
	return m.held[number].Addr().String()
}

func (m *machinePorts) change(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

// tcpFront is an ingress with doors for TCP.
type tcpFront struct {
	*front // without listeners of its own
	*machinePorts
	doors *ingress.Doors
	stop  func() // ends Serve and waits for it
	halt  func() // ends it and does not wait
	recs  *records
}

func serveTCP(t testing.TB, cfg ingress.Config, ports *machinePorts) *tcpFront {
	t.Helper()
	recs := &records{}
	cfg.Observe = recs.observe
	if cfg.Drain == 0 {
		cfg.Drain = 10 * time.Second
	}
	in := ingress.New(cfg)
	f := &tcpFront{front: &front{Ingress: in}, machinePorts: ports, recs: recs, doors: in.Doors(ports, nil)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.doors.Serve(ctx)
	}()
	f.halt = cancel
	f.stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(f.stop)
	return f
}

// route makes t the table and opens its ports.
func (f *tcpFront) route(t link.Table) {
	f.Apply(t)
	f.doors.Follow()
}

// tcpOf turns the routes of a table into one for port 6379.
func tcpOf(t link.Table) link.Table {
	for _, r := range t.Routes {
		t.TCP = append(t.TCP, link.TCPRoute{Port: 6379, Name: "redis", App: r.App, External: true, Policy: r.Policy, Targets: r.Targets})
	}
	t.Routes = nil
	return t
}

// call opens a connection to a port and sends text.
func (f *tcpFront) call(t testing.TB, port int, text string) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", f.addr(port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	return conn.(*net.TCPConn)
}

// hear wants these bytes next.
func hear(t testing.TB, conn net.Conn, want string) {
	t.Helper()
	buf := make([]byte, len(want))
	if n, err := io.ReadFull(conn, buf); string(buf[:n]) != want {
		t.Fatalf("got %q, %v, want %q", buf[:n], err, want)
	}
}

// isReset wants a connection to that address to be reset, which may be as early as in the call that opens it.
func isReset(t testing.TB, addr string) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if errors.Is(err, syscall.ECONNRESET) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	wantReset(t, conn)
}

// wantReset wants the connection to end by a reset.
func wantReset(t testing.TB, conn net.Conn) {
	t.Helper()
	if rest, err := io.ReadAll(conn); len(rest) > 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %q, %v, want a reset", rest, err)
	}
}

// named is a replica that says its name, and then what it is told.
func named(t testing.TB, name string) string {
	return raw(t, func(conn net.Conn, r *bufio.Reader) {
		io.WriteString(conn, name+" ")
		io.Copy(conn, r)
	})
}

// closed is an address that nobody listens at.
func closed(t testing.TB) string {
	ln := listen(t)
	ln.Close()
	return ln.Addr().String()
}

func TestTCPConnection(t *testing.T) {
	f := serveTCP(t, ingress.Config{}, newMachinePorts(t))
	f.route(tcpOf(replicas(raw(t, func(conn net.Conn, r *bufio.Reader) {
		io.WriteString(conn, "hello ") // before the client says anything
		io.Copy(conn, r)
		io.WriteString(conn, " bye")
	}))))
	conn := f.call(t, 6379, "")
	hear(t, conn, "hello ")
	for range 10 {
		io.WriteString(conn, "ping")
		hear(t, conn, "ping")
	}
	if got := f.Report().InFlight["r0"]; got != 1 {
		t.Errorf("in flight: got %d, want 1", got)
	}
	conn.CloseWrite() // the other half stays open
	if rest, err := io.ReadAll(conn); string(rest) != " bye" || err != nil {
		t.Errorf("got %q, %v, want what came after the half-close", rest, err)
	}
	got := f.recs.last(t, 1)
	if got.Start.IsZero() || got.Duration <= 0 || got.FirstByte <= 0 || got.Upstream == "" || got.Connection != 1 {
		t.Errorf("record: got %+v, want times, address and connection", got)
	}
	want := accesslog.Record{
		Start: got.Start, Client: "127.0.0.1", Forwarded: "127.0.0.1", Connection: 1, Scheme: "tcp", Proto: "TCP", Host: "redis:6379",
		App: "/app", Revision: "app--1", Replica: "r0", Upstream: got.Upstream, Attempts: 1, BytesIn: 40, BytesOut: 50,
		FirstByte: got.FirstByte, Duration: got.Duration,
	}
	if got != want {
		t.Errorf("record:\ngot  %+v\nwant %+v", got, want)
	}
	if got.Details() != "via_upstream" {
		t.Errorf("details: got %s, want via_upstream", got.Details())
	}
	if got := f.Report().InFlight["r0"]; got != 0 {
		t.Errorf("in flight: got %d, want 0", got)
	}
	if got := f.Traffic().Replicas["r0"]; got.Requests != 1 || got.Errors != 0 {
		t.Errorf("traffic: got %+v, want one request", got)
	}
}

func TestTCPMuchBothWays(t *testing.T) {
	f := serveTCP(t, ingress.Config{}, newMachinePorts(t))
	f.route(tcpOf(replicas(named(t, "r"))))
	conn := f.call(t, 6379, "")
	hear(t, conn, "r ")
	const size = 64 << 20
	var wg sync.WaitGroup
	wg.Go(func() {
		io.CopyN(conn, zeros{}, size)
		conn.CloseWrite()
	})
	n, err := io.Copy(io.Discard, conn)
	wg.Wait()
	if n != size || err != nil {
		t.Errorf("got %d bytes back, %v, want %d", n, err, size)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestTCPHeldAtZero(t *testing.T) {
	f := serveTCP(t, ingress.Config{}, newMachinePorts(t))
	f.route(tcpOf(replicas()))
	conn := f.call(t, 6379, "ping")
	f.waiting(t, 1)
	f.route(tcpOf(replicas(named(t, "r"))))
	hear(t, conn, "r ping")
	conn.CloseWrite()
	io.ReadAll(conn)
	if got := f.recs.last(t, 1); got.Held <= 0 || got.Flags != 0 {
		t.Errorf("record: got held %v, flags %s, want a time and none", got.Held, got.Flags)
	}
}

// Before the first table, and before the app's first revision.
func TestTCPHeldWithoutATable(t *testing.T) {
	f := serveTCP(t, ingress.Config{}, newMachinePorts(t))
	table := tcpOf(replicas(named(t, "r")))
	bare := table
	bare.TCP = slices.Clone(table.TCP)
	bare.TCP[0].Targets, bare.Revisions = nil, nil
	f.route(bare)
	conn := f.call(t, 6379, "ping")
	until(t, "the connection is held", func() bool { return f.Stats().Held == 1 })
	f.route(table)
	hear(t, conn, "r ping")
}

func TestTCPWeights(t *testing.T) {
	f := serveTCP(t, ingress.Config{}, newMachinePorts(t))
	a, b := link.Revision{ID: "a", Settings: settings()}, link.Revision{ID: "b", Settings: settings()}
	a.Replicas = []link.Replica{{Name: "ra", Addr: named(t, "a")}}
	b.Replicas = []link.Replica{{Name: "rb", Addr: named(t, "b")}}
	table := tcpOf(tableOf(a, b))
	f.route(table)
	count := func() map[string]int {
		got := map[string]int{}
		for range 40 {
			conn := f.call(t, 6379, "")
			buf := make([]byte, 1)
			io.ReadFull(conn, buf)
			got[string(buf)]++
			conn.Close()
		}
		return got
	}
	if got := count(); got["a"] == 0 || got["b"] == 0 || got["a"]+got["b"] != 40 { // by chance once in 2^39
		t.Errorf("halves: got %v", got)
	}
	table.TCP[0].Targets = []link.Target{{Revision: "a", Weight: 0}, {Revision: "b", Weight: 100}}
	f.route(table)
	if got := count(); got["b"] != 40 {
		t.Errorf("all to b: got %v", got)
	}
}

func TestTCPAdditionalPort(t *testing.T) {
	f := serveTCP(t, ingress.Config{}, newMachinePorts(t))
	second := named(t, "second")
	_, port, _ := net.SplitHostPort(second)
	number, _ := strconv.Atoi(port)
	table := tcpOf(replicas(named(t, "first")))
	other := table.TCP[0]
	other.Port, other.TargetPort = 6380, number
	table.TCP = append(table.TCP, other)
	f.route(table)
	hear(t, f.call(t, 6379, ""), "first ")
	conn := f.call(t, 6380, "x")
	hear(t, conn, "second x")
	conn.CloseWrite()
	io.ReadAll(conn)
	if got := f.recs.last(t, 1); got.Upstream != second || got.Host != "redis:6380" {
		t.Errorf("record: got %s at %s, want redis:6380 at %s", got.Host, got.Upstream, second)
	}
}

func TestTCPPlaces(t *testing.T) {
	t.Run("one at a time", func(t *testing.T) {
		f := serveTCP(t, ingress.Config{}, newMachinePorts(t))
		f.route(set(tcpOf(replicas(named(t, "r"))), func(s *resource.Settings) { s.MaxConcurrency = 1 }))
		first := f.call(t, 6379, "1")
		hear(t, first, "r 1")
		second := f.call(t, 6379, "2")
		f.waiting(t, 1)
		first.CloseWrite()
		io.ReadAll(first)
		hear(t, second, "r 2")
	})
	t.Run("round robin", func(t *testing.T) {
		f := serveTCP(t, ingress.Config{}, newMachinePorts(t))
		f.route(set(tcpOf(replicas(named(t, "0"), named(t, "1"))), func(s *resource.Settings) { s.Behaviour = resource.Azure }))
		for i := range 6 {
			hear(t, f.call(t, 6379, ""), strconv.Itoa(i%2)+" ")
		}
	})
	t.Run("one replica is filled first", func(t *testing.T) {
		f := serveTCP(t, ingress.Config{}, newMachinePorts(t))
		table := tcpOf(replicas(named(t, "0"), named(t, "1")))
		table.Revisions[0].Target = 2
		f.route(table)
		for _, want := range []string{"0 ", "0 ", "1 ", "1 "} {
			hear(t, f.call(t, 6379, ""), want)
		}
	})
}

func TestTCPReplicaThatDoesNotAccept(t *testing.T) {
	t.Run("another is tried", func(t *testing.T) {
		f := serveTCP(t, ingress.Config{}, newMachinePorts(t))
		f.route(tcpOf(replicas(closed(t), named(t, "1"))))
		conn := f.call(t, 6379, "x")
		hear(t, conn, "1 x")
		conn.CloseWrite()
		io.ReadAll(conn)
		if got := f.recs.last(t, 1); got.Attempts != 2 || got.Replica != "r1" || got.Flags != 0 {
			t.Errorf("record: got %d tries, replica %s, flags %q, want 2, r1 and none", got.Attempts, got.Replica, got.Flags)
		}
	})
	t.Run("there is no other", func(t *testing.T) {
		f := serveTCP(t, ingress.Config{}, newMachinePorts(t))
		f.route(tcpOf(replicas(closed(t))))
		wantReset(t, f.call(t, 6379, "x"))
		if got := f.recs.last(t, 1); got.Flags != accesslog.FlagConnectFailure || got.Attempts < 2 {
			t.Errorf("record: got flags %q after %d tries, want UF after several", got.Flags, got.Attempts)
		}
		until(t, "its place is free", func() bool { return len(f.Report().InFlight) == 0 })
	})
}

func TestTCPSilence(t *testing.T) {
	f := serveTCP(t, ingress.Config{}, newMachinePorts(t))
	f.route(set(tcpOf(replicas(named(t, "r"))), func(s *resource.Settings) { s.IdleTimeout = 50 * time.Millisecond }))
	conn := f.call(t, 6379, "")
	hear(t, conn, "r ")
	wantReset(t, conn)
	if got := f.recs.last(t, 1); got.Flags != accesslog.FlagStreamIdle {
		t.Errorf("record: got flags %q, want SI", got.Flags)
	}
	until(t, "its place is free", func() bool { return len(f.Report().InFlight) == 0 })
}

func TestTCPIPRules(t *testing.T) {
	here, elsewhere := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	for name, test := range map[string]struct {
		policy link.Policy
		served bool
	}{
		"allowed":            {link.Policy{Allow: here}, true},
		"another is allowed": {link.Policy{Allow: elsewhere}, false},
		"denied":             {link.Policy{Deny: here}, false},
		"another is denied":  {link.Policy{Deny: elsewhere}, true},
	} {
		t.Run(name, func(t *testing.T) {
			f := serveTCP(t, ingress.Config{}, newMachinePorts(t))
			f.route(tcpOf(withPolicy(replicas(named(t, "r")), test.policy)))
			if test.served {
				hear(t, f.call(t, 6379, ""), "r ")
				return
			}
			isReset(t, f.addr(6379))
			if got := f.recs.last(t, 1); got.Attempts != 0 || got.App != "/app" || got.Details() != "rbac_access_denied" {
				t.Errorf("record: got %+v, want the app, and no try", got)
			}
		})
	}
}

func TestTCPWaitingRoom(t *testing.T) {
	t.Run("full", func(t *testing.T) {
		f := serveTCP(t, ingress.Config{}, newMachinePorts(t))
		f.route(set(tcpOf(replicas()), func(s *resource.Settings) { s.QueueLimit = 1 }))
		f.call(t, 6379, "")
		f.waiting(t, 1)
		isReset(t, f.addr(6379))
		if got := f.recs.last(t, 1); got.Flags != accesslog.FlagOverflow || got.Revision != "app--1" {
			t.Errorf("record: got flags %q of %s, want UO of app--1", got.Flags, got.Revision)
		}
		if got := f.Traffic().Refused["app--1"]; got != 1 {
			t.Errorf("refused: got %d, want 1", got)
		}
	})
	t.Run("too long", func(t *testing.T) {
		f := serveTCP(t, ingress.Config{}, newMachinePorts(t))
		f.route(set(tcpOf(replicas()), func(s *resource.Settings) { s.QueueTimeout = 50 * time.Millisecond }))
		wantReset(t, f.call(t, 6379, ""))
		if got := f.recs.last(t, 1); got.Flags != accesslog.FlagNoHealthyUpstream || got.Held < 50*time.Millisecond {
			t.Errorf("record: got flags %q, held %v, want UH after 50ms", got.Flags, got.Held)
		}
	})
	t.Run("for what can never start", func(t *testing.T) {
		f := serveTCP(t, ingress.Config{}, newMachinePorts(t))
		table := tcpOf(replicas())
		table.Revisions[0].Failed = "the image is gone"
		f.route(table)
		isReset(t, f.addr(6379))
		if got := f.recs.last(t, 1); got.Flags != accesslog.FlagNoHealthyUpstream {
			t.Errorf("record: got flags %q, want UH", got.Flags)
		}
	})
	t.Run("its app goes", func(t *testing.T) {
		f := serveTCP(t, ingress.Config{}, newMachinePorts(t))
		f.route(tcpOf(replicas()))
		conn := f.call(t, 6379, "")
		f.waiting(t, 1)
		f.route(link.Table{Epoch: "test", Version: 2})
		wantReset(t, conn)
		if got := f.recs.last(t, 1); got.Flags != accesslog.FlagNoRoute {
			t.Errorf("record: got flags %q, want NR", got.Flags)
		}
	})
}

func TestTCPClientThatLeavesTheLine(t *testing.T) {
	for name, leave := range map[string]func(*net.TCPConn){
		"without a word": func(c *net.TCPConn) { c.Close() },
		"by a reset": func(c *net.TCPConn) {
			io.WriteString(c, "ping")
			c.SetLinger(0)
			c.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := serveTCP(t, ingress.Config{}, newMachinePorts(t))
			f.route(tcpOf(replicas()))
			conn := f.call(t, 6379, "")
			f.waiting(t, 1)
			leave(conn)
			f.waiting(t, 0)
			if got := f.recs.last(t, 1); got.Flags != accesslog.FlagDownstreamTermination {
				t.Errorf("record: got flags %q, want DC", got.Flags)
			}
		})
	}
	t.Run("not when it has only said all that it has to say", func(t *testing.T) {
		f := serveTCP(t, ingress.Config{}, newMachinePorts(t))
		f.route(tcpOf(replicas()))
		patient := f.call(t, 6379, "ping")
		patient.CloseWrite()
		gone := f.call(t, 6379, "")
		gone.Close()
		f.waiting(t, 1) // both were looked at
		f.route(tcpOf(replicas(named(t, "r"))))
		if said, err := io.ReadAll(patient); string(said) != "r ping" {
			t.Errorf("got %q, %v, want the answer", said, err)
		}
	})
}

func TestTCPBreaksOff(t *testing.T) {
	t.Run("the replica", func(t *testing.T) {
		f := serveTCP(t, ingress.Config{}, newMachinePorts(t))
		f.route(tcpOf(replicas(raw(t, func(conn net.Conn, r *bufio.Reader) {
			r.ReadByte()
			conn.(*net.TCPConn).SetLinger(0)
		}))))
		wantReset(t, f.call(t, 6379, "x"))
		if got := f.recs.last(t, 1); got.Flags != accesslog.FlagUpstreamTermination {
			t.Errorf("record: got flags %q, want UC", got.Flags)
		}
		if got := f.Traffic().Replicas["r0"]; got.Errors != 1 {
			t.Errorf("traffic: got %d errors, want 1", got.Errors)
		}
	})
	t.Run("the client", func(t *testing.T) {
		f := serveTCP(t, ingress.Config{}, newMachinePorts(t))
		ended := make(chan error, 1)
		f.route(tcpOf(replicas(raw(t, func(conn net.Conn, r *bufio.Reader) {
			io.WriteString(conn, "r ")
			_, err := io.Copy(io.Discard, r)
			ended <- err
		}))))
		conn := f.call(t, 6379, "x")
		hear(t, conn, "r ")
		conn.SetLinger(0)
		conn.Close()
		if err := receive(t, "the replica hears of it", ended); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("replica: got %v, want a reset", err)
		}
		if got := f.recs.last(t, 1); got.Flags != accesslog.FlagDownstreamTermination {
			t.Errorf("record: got flags %q, want DC", got.Flags)
		}
	})
}

func TestTCPDrain(t *testing.T) {
	t.Run("what is open goes on", func(t *testing.T) {
		ports := newMachinePorts(t)
		f := serveTCP(t, ingress.Config{}, ports)
		table := tcpOf(replicas(named(t, "r")))
		f.route(table)
		conn := f.call(t, 6379, "1")
		hear(t, conn, "r 1")
		f.halt()
		late := f.call(t, 6379, "x") // waits in the listener for the next ingress
		io.WriteString(conn, "2")
		hear(t, conn, "2")
		next := serveTCP(t, ingress.Config{}, ports)
		next.route(table)
		hear(t, late, "r x")
		late.Close()
		io.WriteString(conn, "3")
		hear(t, conn, "3")
		if got := f.Report().InFlight["r0"]; got != 1 {
			t.Errorf("in flight while it drains: got %d, want 1", got)
		}
		conn.CloseWrite()
		io.ReadAll(conn)
		f.stop()
	})
	t.Run("but not for ever", func(t *testing.T) {
		f := serveTCP(t, ingress.Config{Drain: 50 * time.Millisecond}, newMachinePorts(t))
		f.route(tcpOf(replicas(named(t, "r"))))
		conn := f.call(t, 6379, "")
		hear(t, conn, "r ")
		f.stop()
		wantReset(t, conn)
		if got := f.recs.last(t, 1); got.Flags != accesslog.FlagLocalReset {
			t.Errorf("record: got flags %q, want LR", got.Flags)
		}
	})
}

// Two ingresses in a row, and connections all the while.
func TestTCPHandOverLosesNothing(t *testing.T) {
	ports := newMachinePorts(t)
	table := tcpOf(replicas(named(t, "r")))
	f := serveTCP(t, ingress.Config{}, ports)
	f.route(table)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	done := make(chan int, 4)
	for range 4 {
		wg.Go(func() {
			n := 0
			defer func() { done <- n }()
			for ; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				conn, err := net.Dial("tcp", ports.addr(6379))
				if err != nil {
					t.Errorf("connection %d: %v", n, err)
					return
				}
				io.WriteString(conn, "x")
				conn.(*net.TCPConn).CloseWrite()
				conn.SetDeadline(time.Now().Add(10 * time.Second))
				said, err := io.ReadAll(conn)
				conn.Close()
				if string(said) != "r x" {
					t.Errorf("connection %d: got %q, %v", n, said, err)
					return
				}
			}
		})
	}
	for range 5 {
		next := serveTCP(t, ingress.Config{}, ports)
		next.route(table)
		until(t, "the next one has some", func() bool { return next.Stats().Requests > 10 })
		f.stop()
		f = next
	}
	close(stop)
	wg.Wait()
	total := 0
	for range 4 {
		total += <-done
	}
	t.Logf("%d connections over five hand-overs", total)
}

func TestTCPPortsFollowTheTable(t *testing.T) {
	f := serveTCP(t, ingress.Config{}, newMachinePorts(t))
	table := tcpOf(replicas(named(t, "r")))
	f.route(table)
	hear(t, f.call(t, 6379, ""), "r ")

	moved := table
	moved.TCP = slices.Clone(table.TCP)
	moved.TCP[0].Port = 7000
	f.route(moved)
	if f.addr(6379) != "" {
		t.Error("port 6379 is open, and no app has it any more")
	}
	hear(t, f.call(t, 7000, ""), "r ")

	internal := moved
	internal.TCP = slices.Clone(moved.TCP)
	internal.TCP[0].External = false
	f.route(internal)
	if f.addr(7000) != "" {
		t.Error("port 7000 is open, and its app is internal")
	}
	f.change(func() {
		if got := f.asked[len(f.asked)-1]; len(got) != 0 {
			t.Errorf("asked for %v, want nothing", got)
		}
	})
}

func TestTCPPortThatIsTaken(t *testing.T) {
	f := serveTCP(t, ingress.Config{}, newMachinePorts(t))
	f.change(func() { f.faults[6379] = "already in use by redis-server (pid 7)" })
	f.route(tcpOf(replicas(named(t, "r"))))
	want := []link.Unopened{{Port: 6379, App: "/app", Reason: "already in use by redis-server (pid 7)"}}
	if got := f.doors.Unopened(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	receive(t, "a report is asked for", f.Changed())
	f.change(func() { delete(f.faults, 6379) })
	until(t, "it is tried again", func() bool { return len(f.doors.Unopened()) == 0 })
	hear(t, f.call(t, 6379, ""), "r ")
}

// What another ingress has taken over is no fault, and goes on.
func TestTCPPortsOfANewerIngress(t *testing.T) {
	f := serveTCP(t, ingress.Config{}, newMachinePorts(t))
	table := tcpOf(replicas(named(t, "r")))
	f.route(table)
	f.change(func() { f.later = true })
	both := table
	both.TCP = append(slices.Clone(table.TCP), table.TCP[0])
	both.TCP[1].Port = 7000
	f.route(both)
	hear(t, f.call(t, 6379, ""), "r ")
	if got := f.doors.Unopened(); len(got) > 0 {
		t.Errorf("got %v, want nothing said", got)
	}
	f.change(func() { f.later = false })
	until(t, "it asks again", func() bool { return f.addr(7000) != "" })
}

// Replicas reach the ports of their own environment, and no others, external or not.
func TestTCPNeighbours(t *testing.T) {
	const home = "/env"
	table := tcpOf(replicas(named(t, "r")))
	table.TCP[0].Environment = home
	far := table.TCP[0]
	far.Port, far.Environment = 7000, "/other"
	table.TCP = append(table.TCP, far)
	for addresses, reached := range map[string]bool{"127.0.0.0/8": false, "10.2.0.0/21": true} {
		f := serveTCP(t, ingress.Config{}, newMachinePorts(t))
		table.Environments = []link.Environment{{ID: home, Domain: "test", Addresses: netip.MustParsePrefix(addresses)}, {ID: "/other", Domain: "other.test"}}
		f.route(table)
		hear(t, f.call(t, 6379, ""), "r ")
		if reached {
			hear(t, f.call(t, 7000, ""), "r ")
		} else {
			isReset(t, f.addr(7000))
		}
	}
}

// A connection that no firewall has led here was for no port.
func TestTCPInsideWithoutADestination(t *testing.T) {
	in := ingress.New(ingress.Config{})
	in.Apply(tcpOf(replicas(named(t, "r"))))
	ln := listen(t)
	doors := in.Doors(newMachinePorts(t), ln)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { doors.Serve(ctx) })
	defer wg.Wait()
	defer cancel()
	isReset(t, ln.Addr().String())
}
