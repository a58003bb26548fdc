package link

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

// retryAfter is the pause between two attempts to reach control. Control is back within a second of a crash, and
// dialling a unix socket without a listener costs next to nothing.
const retryAfter = 50 * time.Millisecond

// Client is the ingress's end of the link.
type Client struct {
	// Dial connects to control.
	Dial func(ctx context.Context) (net.Conn, error)
	// Apply is called with each new table, one after another. When it returns, new requests are routed by that table.
	Apply func(Table)
	// Report returns the current state.
	Report func() Report
	// Traffic returns what has been counted. It can be nil.
	Traffic func() *Traffic
	// Changed requests a report before the next one is due. It can be nil.
	Changed <-chan struct{}
	Log     *slog.Logger
}

// Run keeps a connection to control until ctx ends, dialling again whenever it breaks.
func (c *Client) Run(ctx context.Context) {
	away := false
	for ctx.Err() == nil {
		conn, err := c.Dial(ctx)
		if err == nil {
			if away {
				c.Log.Info("control is back")
			}
			away = false
			err = c.talk(ctx, conn)
		}
		if ctx.Err() != nil {
			return
		}
		if !away {
			c.Log.Warn("control is away; routing goes on by the last table", "err", err)
		}
		away = true
		select {
		case <-time.After(retryAfter):
		case <-ctx.Done():
		}
	}
}

func (c *Client) talk(ctx context.Context, conn net.Conn) error {
	defer conn.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()

	applied := make(chan struct{}, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { cancel(c.report(ctx, conn, applied)) })
	// Control is silent while nothing changes. If its process exits, the connection ends.
	var last Table
	err := receive(conn, 0, func(f frame) (err error) {
		switch {
		case f.Table != nil:
			last = *f.Table
		case f.Change != nil:
			if last, err = last.with(*f.Change); err != nil {
				return err // the next connection begins with a table
			}
		default:
			return nil
		}
		c.Apply(last)
		select {
		case applied <- struct{}{}:
		default:
		}
		return nil
	})
	cancel(err)
	return context.Cause(ctx)
}

func (c *Client) report(ctx context.Context, conn net.Conn, applied <-chan struct{}) error {
	w := json.NewEncoder(conn)
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	due := true
	for {
		if err := conn.SetWriteDeadline(time.Now().Add(lostAfter)); err != nil {
			return err
		}
		r := c.Report()
		r.Changes = true
		if due && c.Traffic != nil {
			r.Traffic = c.Traffic()
		}
		due = false
		if err := w.Encode(frame{Report: &r}); err != nil {
			return fmt.Errorf("send report: %w", err)
		}
		select { // several changes are sent as one report
		case <-time.After(reportPause):
		case <-ctx.Done():
			return nil
		}
		select {
		case <-applied:
		case <-c.Changed:
		case <-tick.C:
			due = true
		case <-ctx.Done():
			return nil
		}
	}
}
