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

	"penstock/internal/access"
	"penstock/internal/ingress/front"
)

// connection is one connection of a TCP app. It gets a place as a request does, and keeps it to its end.
type connection struct {
	in     *Ingress
	front  abrupt
	client *client
	port   int // that the client connected to
	rec    access.Record
	ticket ticket
}

// abrupt is a connection whose Close is a reset: an end that came too early must not look like one that was meant.
type abrupt struct{ *net.TCPConn }

func (c abrupt) Close() error {
	_ = c.SetLinger(0) // fails on a closed connection only
	return c.TCPConn.Close()
}

// connect serves a connection that came to that port, and returns when it is over.
func (in *Ingress) connect(ctx context.Context, conn *net.TCPConn, port int) {
	now := time.Now()
	c := &connection{in: in, front: abrupt{conn}, client: newClient(conn.RemoteAddr().String(), conn), port: port}
	c.client.number = in.clients.Add(1)
	c.rec = access.Record{
		Start: now, Client: c.client.address, Forwarded: c.client.address, Connection: c.client.number,
		Scheme: "tcp", Proto: access.ProtoTCP, Host: ":" + strconv.Itoa(port),
	}
	c.ticket = ticket{port: port, from: c.client.addr, since: now}
	if c.serve(ctx) == over {
		conn.Close()
	} else {
		c.front.Close()
	}
	c.rec.Held = c.ticket.held
	c.rec.Duration = time.Since(now)
	in.count(c.client).requests.Add(1)
	if in.cfg.Observe != nil {
		in.cfg.Observe(&c.rec)
	}
}

// serve returns over for a connection that both sides have ended, and cut for one that is to be reset.
func (c *connection) serve(ctx context.Context) verdict {
	for {
		rt := c.in.table.Load().port(c.port, c.client.addr)
		if rt == nil {
			return c.refuse(access.FlagNoRoute)
		}
		c.rec.App = rt.app
		c.rec.Host = net.JoinHostPort(rt.name, strconv.Itoa(c.port))
		if rt.policy != nil && !rt.policy.admits(c.client.addr) {
			return c.refuse(0)
		}
		if v := c.place(ctx, rt); v != again {
			return v
		}
	}
}

// refuse is for a connection that got no replica.
func (c *connection) refuse(flag access.Flags) verdict {
	c.rec.Flags |= flag
	c.in.count(c.client).refused.Add(1)
	return cut
}

// place gets a place in a room of the route's and makes one try.
func (c *connection) place(ctx context.Context, rt *route) verdict {
	rm := rt.choose()
	waiting, stop := c.watch(ctx)
	r, err := rm.claim(waiting, &c.ticket)
	stop()
	if err == nil && c.ticket.held > 0 && gone(c.front.TCPConn) {
		rm.release(r)
		err = front.ErrClientGone
	}
	if err == nil {
		c.rec.Revision, c.rec.Replica = rm.name, r.name
		v := again
		defer func() {
			if v == again {
				rm.release(r)
				return
			}
			c.rec.Duration = time.Since(c.rec.Start)
			rm.done(r, &c.rec)
		}()
		v = c.try(ctx, rm, r, rt.targetPort)
		return v
	}
	if refusal, ok := errors.AsType[*refusal](err); ok {
		c.rec.Revision = rm.name
		rm.refuses()
		return c.refuse(refusal.flag)
	}
	switch {
	case errors.Is(err, errMoved):
		return again
	case errors.Is(err, errTried):
		return c.pause(ctx)
	default:
		return c.left(err)
	}
}

// lookEvery is how often it is looked whether the client of a connection that waits is still there: nobody reads from it.
const lookEvery = 500 * time.Millisecond

// watch returns a context that ends when the client leaves, until stop is called.
func (c *connection) watch(ctx context.Context) (waiting context.Context, stop func()) {
	waiting, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(lookEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if gone(c.front.TCPConn) {
					cancel(front.ErrClientGone)
					return
				}
			case <-waiting.Done():
				return
			}
		}
	})
	return waiting, func() {
		cancel(nil)
		wg.Wait()
	}
}

// left ends a connection whose client or whose time has gone.
func (c *connection) left(err error) verdict {
	if errors.Is(err, errCut) {
		c.rec.Flags |= access.FlagLocalReset
	} else {
		c.rec.Flags |= access.FlagDownstreamTermination
	}
	return cut
}

// pause comes before another round of tries, or gives up.
func (c *connection) pause(ctx context.Context) verdict {
	spent, err := c.ticket.rest(ctx)
	switch {
	case spent:
		return c.refuse(0) // its flag is set
	case err != nil:
		return c.left(err)
	}
	return again
}

// try opens a connection to r and joins the two. Until then nothing has been sent, so that another replica is as good.
func (c *connection) try(ctx context.Context, rm *room, r *replica, targetPort int) verdict {
	c.rec.Upstream = at(c.ticket.addr, targetPort)
	if c.rec.Attempts > 0 {
		c.in.count(c.client).retried.Add(1)
	}
	c.rec.Attempts++
	back, err := c.in.upstreams.Dial(ctx, c.rec.Upstream)
	if err != nil {
		if ctx.Err() != nil {
			return c.left(context.Cause(ctx))
		}
		c.rec.Flags |= access.FlagConnectFailure
		c.ticket.shun(rm, r, time.Now())
		return again
	}
	c.rec.Flags &^= access.FlagConnectFailure // it is for those that got none
	c.in.count(c.client).dialled.Add(1)
	c.in.count(c.client).tunnelled.Add(1)
	return c.join(ctx, r, abrupt{back.(*net.TCPConn)})
}

// at is an address with another port if there is one.
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

// broken says which side ended a connection before its end. The failure of one closes both, so that what failed by that
// says nothing.
func broken(up, down error) access.Flags {
	failed := func(err error, sending bool) bool {
		_, sends := errors.AsType[errSend](err)
		return err != nil && sends == sending && !errors.Is(err, net.ErrClosed)
	}
	switch {
	case errors.Is(up, os.ErrDeadlineExceeded), errors.Is(down, os.ErrDeadlineExceeded):
		return access.FlagStreamIdle
	case failed(up, false), failed(down, true):
		return access.FlagDownstreamTermination
	case failed(up, true), failed(down, false):
		return access.FlagUpstreamTermination
	}
	return 0
}

// accept serves the connections of a listener until it is closed. port tells which one a connection is for.
func (in *Ingress) accept(ctx context.Context, ln net.Listener, talking *sync.WaitGroup, port func(*net.TCPConn) (int, error)) {
	for {
		conn, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			in.cfg.Log.Warn("a connection cannot be accepted", "listener", ln.Addr(), "err", err)
			time.Sleep(acceptPause) // there are no descriptors left, or no memory
			continue
		}
		talking.Go(func() {
			tcp := conn.(*net.TCPConn)
			number, err := port(tcp)
			if err != nil {
				in.cfg.Log.Debug("a connection is for no port", "from", conn.RemoteAddr(), "err", fmt.Errorf("original destination: %w", err))
				abrupt{tcp}.Close()
				return
			}
			in.connect(ctx, tcp, number)
		})
	}
}

// acceptPause is how long nothing is accepted after that has failed.
const acceptPause = 50 * time.Millisecond
