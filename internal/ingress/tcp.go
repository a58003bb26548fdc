package ingress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"penstock/internal/accesslog"
	"penstock/internal/ingress/room"
)

// connection is one connection of a TCP app. It takes a place as a request does, and keeps it until it ends.
type connection struct {
	visit
	front      abrupt
	port       int // that the client connected to
	targetPort int // of the replicas; 0: that of the revision
}

// abrupt is a connection whose Close resets it, so that an early end does not look like a regular one.
type abrupt struct{ *net.TCPConn }

func (c abrupt) Close() error {
	_ = c.SetLinger(0) // fails on a closed connection only
	return c.TCPConn.Close()
}

// connect serves a connection to a port, and returns when it is over.
func (in *Ingress) connect(ctx context.Context, conn *net.TCPConn, port int) {
	now := time.Now()
	c := &connection{front: abrupt{conn}, port: port}
	c.in, c.client = in, newClient(conn.RemoteAddr().String(), conn)
	c.gone = func() bool { return gone(conn) } // nobody reads from it while it waits
	c.client.number = in.clients.Add(1)
	in.shared.Store(net.Conn(conn), c.client)
	in.crowd.tcp.Add(1)
	defer func() {
		in.shared.Delete(net.Conn(conn))
		in.crowd.tcp.Add(-1)
	}()
	c.rec = accesslog.Record{
		Start: now, Client: c.client.address, Forwarded: c.client.address, Connection: c.client.number,
		Scheme: "tcp", Proto: accesslog.ProtoTCP, Host: ":" + strconv.Itoa(port),
	}
	c.ticket.port, c.ticket.from, c.ticket.Arrived = port, c.client.addr, now
	if c.serve(ctx) == over {
		conn.Close()
	} else {
		c.front.Close()
	}
	c.finish()
}

// serve returns over for a connection that both sides have ended, and cut for one that must be reset.
func (c *connection) serve(ctx context.Context) verdict {
	for {
		rt := c.in.table.Load().port(c.port, c.client.addr)
		if rt == nil {
			return c.reject(accesslog.FlagNoRoute)
		}
		c.rec.App = rt.app
		c.rec.Host = net.JoinHostPort(rt.name, strconv.Itoa(c.port))
		if rt.policy != nil && !rt.policy.admits(c.client.addr) {
			return c.reject(0)
		}
		c.targetPort = rt.targetPort
		if v := c.place(ctx, rt.choose(), c); v != again {
			return v
		}
	}
}

// reject ends a connection that got no replica.
func (c *connection) reject(flag accesslog.Flags) verdict {
	c.rec.Flags |= flag
	c.in.count(c.client).refused.Add(1)
	return cut
}

func (c *connection) refuse(rm *guardedRoom, why *room.Refusal) verdict {
	flag, _, _ := rm.explain(why)
	return c.reject(flag)
}

func (c *connection) unreachable() verdict { return c.reject(0) } // its flag is set

// left ends a connection whose client has left, or that the drain cuts.
func (c *connection) left(err error) verdict {
	if errors.Is(err, errCut) {
		c.rec.Flags |= accesslog.FlagLocalReset
	} else {
		c.rec.Flags |= accesslog.FlagDownstreamTermination
	}
	return cut
}

// try opens a connection to r and joins the two. If r accepts none, nothing was sent, so another replica can be tried.
func (c *connection) try(ctx context.Context, rm *guardedRoom, r *replica) verdict {
	c.rec.Upstream = at(c.ticket.addr, c.targetPort)
	back, err := c.in.upstreams.Dial(ctx, c.rec.Upstream)
	if err != nil {
		if ctx.Err() != nil {
			return c.left(context.Cause(ctx))
		}
		c.rec.Flags |= accesslog.FlagConnectFailure
		rm.shun(&c.ticket, r, time.Now())
		return again
	}
	c.rec.Flags &^= accesslog.FlagConnectFailure // the flag is for connections that reached no replica
	c.in.count(c.client).dialled.Add(1)
	c.in.count(c.client).tunnelled.Add(1)
	return c.join(ctx, r, abrupt{back.(*net.TCPConn)})
}

// at returns addr with another port, unless port is 0.
func at(addr string, port int) string {
	host, _, err := net.SplitHostPort(addr)
	if port == 0 || err != nil {
		return addr
	}
	return net.JoinHostPort(host, strconv.Itoa(port))
}

// join carries bytes both ways until both have ended.
func (c *connection) join(ctx context.Context, r *replica, back abrupt) verdict {
	j := joint{silence: c.ticket.settings.IdleTimeout}
	j.moved.Store(time.Now().UnixNano())
	stop := context.AfterFunc(ctx, func() {
		c.front.Close()
		back.Close()
	})
	var wg sync.WaitGroup
	var up, down error
	wg.Go(func() { c.rec.BytesIn, up = j.pipe(back, c.front, nil, func(time.Time) {}) })
	c.rec.BytesOut, down = j.pipe(c.front, back, nil, func(now time.Time) {
		if c.rec.FirstByte == 0 {
			c.rec.FirstByte = now.Sub(c.rec.Start)
		}
		r.pool.Answered(now)
	})
	wg.Wait()
	if !stop() {
		return c.left(context.Cause(ctx))
	}
	if c.rec.Flags |= broken(up, down); c.rec.Flags != 0 {
		back.Close()
		return cut
	}
	back.TCPConn.Close()
	return over
}

// broken says which side broke a connection. When one side fails both are closed; errors that come from being closed are
// ignored.
func broken(up, down error) accesslog.Flags {
	failed := func(err error, sending bool) bool {
		_, sends := errors.AsType[errSend](err)
		return err != nil && sends == sending && !errors.Is(err, net.ErrClosed)
	}
	switch {
	case errors.Is(up, os.ErrDeadlineExceeded), errors.Is(down, os.ErrDeadlineExceeded):
		return accesslog.FlagStreamIdle
	case failed(up, false), failed(down, true):
		return accesslog.FlagDownstreamTermination
	case failed(up, true), failed(down, false):
		return accesslog.FlagUpstreamTermination
	}
	return 0
}

// accept gives the connections of a listener to take until the listener is closed.
func (in *Ingress) accept(ln net.Listener, take func(*net.TCPConn)) {
	for {
		conn, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			in.cfg.Log.Warn("a connection cannot be accepted", "listener", ln.Addr(), "err", err)
			time.Sleep(acceptPause) // descriptors or memory have run out
			continue
		}
		if !in.admit(conn) {
			abrupt{conn.(*net.TCPConn)}.Close()
			continue
		}
		take(conn.(*net.TCPConn))
	}
}

// connectInside serves a connection of a replica, which the firewall has redirected.
func (in *Ingress) connectInside(ctx context.Context, conn *net.TCPConn) {
	number, err := originalPort(conn)
	if err != nil {
		in.cfg.Log.Debug("a connection is for no port", "from", conn.RemoteAddr(), "err", fmt.Errorf("original destination: %w", err))
		abrupt{conn}.Close()
		return
	}
	in.connect(ctx, conn, number)
}

// acceptPause is the pause after accepting a connection has failed.
const acceptPause = 50 * time.Millisecond
