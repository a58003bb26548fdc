package ingress

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"penstock/internal/link"
)

// Ports opens ports of the machine.
type Ports interface {
	// Open asks for exactly these ports, which replace those asked for before, and returns one Port for each. The caller
	// closes the listeners. ErrLater means that nothing was done.
	Open(ctx context.Context, wanted []Wanted) ([]Port, error)
	// Close ends the asking for ports.
	Close()
}

// Wanted is a port to open.
type Wanted struct {
	Number   int
	Loopback bool // for this machine only, and for one app over HTTP
}

func (w Wanted) compare(other Wanted) int {
	if w.Number == other.Number && w.Loopback != other.Loopback {
		if w.Loopback {
			return 1
		}
		return -1
	}
	return cmp.Compare(w.Number, other.Number)
}

// Port has a listener, or the reason why there is none.
type Port struct {
	Wanted
	Listener net.Listener
	Fault    string
}

// ErrLater means that a newer ingress has taken over the ports.
var ErrLater = errors.New("a newer ingress has the ports")

// Doors accept the connections of TCP apps, and those to the ports that lead to one app over HTTP. Clients outside connect to
// ports that open and close with the table. Replicas' connections are redirected to one listener by the firewall.
type Doors struct {
	in     *Ingress
	ports  Ports
	inside net.Listener

	asks  chan chan struct{} // a look at the table is asked for; the channel that is sent is closed when it was done
	shut  chan struct{}      // nothing is accepted any more
	ended chan struct{}

	mu       sync.Mutex
	unopened []link.Unopened
}

// Doors returns the doors of the ingress. If ports is nil, nobody outside can connect; inside may be nil too.
func (in *Ingress) Doors(ports Ports, inside net.Listener) *Doors {
	d := &Doors{in: in, ports: ports, inside: inside, asks: make(chan chan struct{}), shut: make(chan struct{}), ended: make(chan struct{})}
	in.doors.Store(d)
	return d
}

const (
	// doorsPatience bounds how long a table waits for its ports, so that they are open when a change is reported as done.
	doorsPatience = time.Second
	// Ports that could not be opened are asked for again, soon at first: a process that is just ending may hold them.
	doorsFirst = 100 * time.Millisecond
	doorsLast  = 3 * time.Second
)

// Follow opens and closes doors to match the ingress's table. It waits for that, but at most doorsPatience.
func (d *Doors) Follow() {
	done := make(chan struct{})
	late := time.NewTimer(doorsPatience)
	defer late.Stop()
	select {
	case d.asks <- done:
	case <-d.ended:
		return
	case <-late.C:
		return
	}
	select {
	case <-done:
	case <-d.ended:
	case <-late.C:
	}
}

// Unopened returns the ports of the table that could not be opened.
func (d *Doors) Unopened() []link.Unopened {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.unopened)
}

// door is an open port.
type door struct {
	ln     net.Listener
	closed chan struct{} // nothing is accepted any more
}

// close returns when the listener is closed in the kernel too.
func (d door) close() {
	d.ln.Close()
	<-d.closed
}

// Serve accepts connections until ctx ends. Then it drains: it accepts no more and waits for open connections to end, at
// most for Config.Drain. It is called once.
func (d *Doors) Serve(ctx context.Context) {
	defer close(d.ended)
	// Connections live on when ctx ends, until the drain has lasted too long.
	connections, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	var talking sync.WaitGroup
	open := map[Wanted]door{}
	start := func(ln net.Listener, take func(*net.TCPConn)) door {
		one := door{ln, make(chan struct{})}
		go func() {
			defer close(one.closed)
			d.in.accept(ln, take)
		}()
		return one
	}
	accept := func(p Wanted, ln net.Listener) door {
		if p.Loopback {
			return start(ln, func(conn *net.TCPConn) { d.in.serveOwn(conn, p.Number) })
		}
		return start(ln, func(conn *net.TCPConn) {
			talking.Go(func() { d.in.connect(connections, conn, p.Number) })
		})
	}
	var inside door
	if d.inside != nil {
		inside = start(d.inside, func(conn *net.TCPConn) {
			talking.Go(func() { d.in.connectInside(connections, conn) })
		})
	}
	var asked []Wanted // the ports of the last answer; nil if there was none
	satisfied := false
	look := func() {
		want, known := d.in.externalPorts()
		if !known {
			return // an ingress before this one may hold ports that will be wanted
		}
		for port, one := range open {
			if want[port] == "" {
				one.close()
				delete(open, port)
			}
		}
		ports := slices.SortedFunc(maps.Keys(want), Wanted.compare)
		if satisfied && slices.Equal(ports, asked) || len(ports) == 0 && asked == nil && d.ports == nil {
			return
		}
		asked, satisfied = ports, d.open(ctx, want, ports, open, accept)
	}
	look()
	wait := doorsFirst
	for ctx.Err() == nil {
		var again <-chan time.Time
		if !satisfied {
			again = time.After(wait)
		}
		select {
		case done := <-d.asks:
			look()
			close(done)
			wait = doorsFirst
		case <-again:
			look()
			wait = min(2*wait, doorsLast)
		case <-ctx.Done():
		}
	}

	if d.ports != nil {
		d.ports.Close()
	}
	for _, one := range open {
		one.close()
	}
	if d.inside != nil {
		inside.close()
	}
	close(d.shut)
	d.note(nil)
	over := make(chan struct{})
	go func() {
		talking.Wait()
		close(over)
	}()
	limit := time.NewTimer(d.in.cfg.Drain)
	defer limit.Stop()
	select {
	case <-over:
	case <-limit.C:
		d.in.cfg.Log.Warn("drain took too long; connections that are left are reset", "limit", d.in.cfg.Drain)
		end(errCut)
		<-over
	}
}

// open asks for the wanted ports, accepts connections on the new ones, and says whether all are open.
func (d *Doors) open(ctx context.Context, want map[Wanted]string, ports []Wanted, open map[Wanted]door, accept func(Wanted, net.Listener) door) bool {
	var got []Port
	err := errors.New("this ingress opens no ports")
	if d.ports != nil {
		got, err = d.ports.Open(ctx, ports)
	}
	if errors.Is(err, ErrLater) || ctx.Err() != nil {
		return false // nothing new is known
	}
	var unopened []link.Unopened
	for _, port := range got {
		switch _, already := open[port.Wanted]; {
		case port.Listener == nil:
			unopened = append(unopened, link.Unopened{Port: port.Number, App: want[port.Wanted], Reason: port.Fault})
		case already:
			port.Listener.Close() // another copy of the same socket
		default:
			open[port.Wanted] = accept(port.Wanted, port.Listener)
		}
	}
	if err != nil {
		for _, port := range ports {
			if _, already := open[port]; !already {
				unopened = append(unopened, link.Unopened{Port: port.Number, App: want[port], Reason: err.Error()})
			}
		}
	}
	d.note(unopened)
	return err == nil && len(unopened) == 0
}

// note stores what must be reported, and causes a report if it has changed.
func (d *Doors) note(unopened []link.Unopened) {
	d.mu.Lock()
	news := !slices.Equal(unopened, d.unopened)
	d.unopened = unopened
	d.mu.Unlock()
	if news {
		d.in.nudge()
	}
}

// externalPorts returns the ports that are open to clients outside, with their apps. known is false until there is a table.
func (in *Ingress) externalPorts() (apps map[Wanted]string, known bool) {
	t := in.table.Load()
	apps = make(map[Wanted]string, len(t.ports)+len(t.own))
	for port, rt := range t.ports {
		apps[Wanted{port, false}] = rt.app
	}
	for port, rt := range t.own {
		apps[Wanted{port, true}] = rt.app
	}
	return apps, t.beforeFirst == nil
}
