package ingress

import (
	"crypto/tls"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// crowd keeps descriptors for connections to replicas and for everybody else when somebody opens very many connections. The
// kernel gives out the lowest free number, so the number of a new connection's descriptor says how many are in use; and each
// client's connection may need a second one, to a replica.
//
// Above soft, the process is crowded: connections whose clients have nothing under way are closed, first those of sources
// that have more than their share, then the ones that have been idle for longest, and at least for hurriedHead; heads have
// less time; and a source that has more than its share is admitted no more. Above hard nobody is admitted; what is left is
// for replicas.
type crowd struct {
	soft, hard, share int // 0: there is no limit

	hurried atomic.Int64 // until when heads have less time, as Unix time in nanoseconds
	shed    atomic.Int64
	tcp     atomic.Int64 // connections of TCP apps, which life does not count

	mu     sync.Mutex
	looked time.Time           // when the connections were last looked through
	greedy map[netip.Addr]bool // sources that had more than their share then
	told   time.Time           // when this was last logged
}

const (
	// crowdLook is how often the connections are looked through while the process is crowded, and crowdLasts how long heads
	// have less time after that.
	crowdLook  = 100 * time.Millisecond
	crowdLasts = 10 * time.Second
	// hurriedHead is how long a client has for a head then.
	hurriedHead = 3 * time.Second
	crowdTold   = 30 * time.Second
)

func newCrowd(descriptors int) crowd {
	return crowd{soft: descriptors - descriptors/4, hard: descriptors - descriptors/8, share: descriptors / 8}
}

// admit says whether a new connection is served.
func (in *Ingress) admit(nc net.Conn) bool {
	c := &in.crowd
	if c.soft == 0 {
		return true
	}
	n := max(descriptor(nc), 2*int(in.life.n.Load()+c.tcp.Load()))
	if n < c.soft {
		return true
	}
	from, now := source(nc), time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.looked) >= crowdLook {
		c.looked = now
		c.hurried.Store(now.Add(crowdLasts).UnixNano())
		in.thinOut(n - c.soft + c.share/8)
	}
	if n < c.hard && !c.greedy[from] {
		return true
	}
	c.shed.Add(1)
	return false
}

// waiter is a connection whose client has nothing under way.
type waiter struct {
	from  netip.Addr
	since time.Time
	end   func()
}

// thinOut closes up to n connections, and notes which sources have more than their share. It is called with crowd.mu held.
func (in *Ingress) thinOut(n int) {
	c := &in.crowd
	count := map[netip.Addr]int{}
	var waiters []waiter
	visit := func(nc net.Conn, since time.Time, end func()) {
		from := source(nc)
		count[from]++
		if !since.IsZero() {
			waiters = append(waiters, waiter{from, since, end})
		}
	}
	for _, s := range in.servers {
		s.Connections(visit)
	}
	in.shared.Range(func(key, value any) bool {
		nc := key.(net.Conn)
		var since time.Time
		if idle := value.(*client).idle.Load(); idle != 0 {
			since = time.Unix(0, idle)
		}
		if secure, ok := nc.(*tls.Conn); ok {
			nc = secure.NetConn() // its own Close may wait for the client
		}
		visit(nc, since, func() { nc.Close() })
		return true
	})
	c.greedy = map[netip.Addr]bool{}
	for from, n := range count {
		if n > c.share {
			c.greedy[from] = true
		}
	}
	waiters = slices.DeleteFunc(waiters, func(w waiter) bool { return !c.greedy[w.from] && c.looked.Sub(w.since) < hurriedHead })
	slices.SortFunc(waiters, func(a, b waiter) int {
		if a, b := c.greedy[a.from], c.greedy[b.from]; a != b {
			if a {
				return -1
			}
			return 1
		}
		return a.since.Compare(b.since)
	})
	for _, w := range waiters[:min(n, len(waiters))] {
		w.end()
		c.shed.Add(1)
	}
	if now := c.looked; now.Sub(c.told) >= crowdTold {
		c.told = now
		in.cfg.Log.Warn("descriptors are running out: idle connections of clients are closed, and sources with very many get no more",
			"closed", min(n, len(waiters)), "sources", len(count), "refused", len(c.greedy), "shed", c.shed.Load())
	}
}

// headerTimeout is how long a client has for a request's head.
func (in *Ingress) headerTimeout() time.Duration {
	if until := in.crowd.hurried.Load(); until != 0 && time.Now().UnixNano() < until {
		return min(in.cfg.HeaderTimeout, hurriedHead)
	}
	return in.cfg.HeaderTimeout
}

// descriptor returns the number of a socket's descriptor, or 0 if it has none.
func descriptor(nc net.Conn) (n int) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return 0
	}
	if raw, err := sc.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { n = int(fd) }) // fails on a closed connection
	}
	return n
}

// source is the address that a connection comes from; all invalid addresses are one.
func source(nc net.Conn) netip.Addr {
	if tcp, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}
