package link

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Hub is control's end of the link. It keeps the newest table, sends it to every ingress, and keeps the newest report
// of each.
type Hub struct {
	epoch string
	log   *slog.Logger

	mu      sync.Mutex
	table   Table
	changed chan struct{} // closed and replaced at each Publish
	reports map[int]Report
	traffic map[int]history // from reports; only some of them contain traffic
	demand  demands
	nextID  int
	// heard is closed and replaced at each report, connect and disconnect.
	heard chan struct{}
}

// NewHub returns a hub with this epoch, which no earlier hub may have used.
func NewHub(epoch string, log *slog.Logger) *Hub {
	return &Hub{
		epoch:   epoch,
		log:     log,
		changed: make(chan struct{}),
		reports: map[int]Report{},
		traffic: map[int]history{},
		demand:  newDemands(),
		heard:   make(chan struct{}),
	}
}

// Publish replaces the table with t, sets its epoch and version, and returns the version.
func (h *Hub) Publish(t Table) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	t.Epoch, t.Version = h.epoch, h.table.Version+1
	h.table = t
	close(h.changed)
	h.changed = make(chan struct{})
	return t.Version
}

// Serve accepts ingresses from ln until ctx ends, and returns when all their connections have ended.
func (h *Hub) Serve(ctx context.Context, ln net.Listener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	for {
		conn, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept ingress: %w", err)
		}
		wg.Go(func() {
			if err := h.serve(ctx, conn); err != nil && ctx.Err() == nil {
				h.log.Warn("ingress left", "err", err)
			}
		})
	}
}

func (h *Hub) serve(ctx context.Context, conn net.Conn) error {
	defer conn.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()

	h.mu.Lock()
	id := h.nextID
	h.nextID++
	h.hear(id, Report{})
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.reports, id)
		delete(h.traffic, id)
		h.demand.leave(id, time.Now())
		h.wake()
	}()

	var wg sync.WaitGroup
	defer wg.Wait()
	var changes atomic.Bool
	wg.Go(func() { cancel(h.send(ctx, conn, &changes)) })
	err := receive(conn, lostAfter, func(f frame) error {
		if f.Report == nil {
			return nil
		}
		changes.Store(f.Report.Changes)
		h.mu.Lock()
		defer h.mu.Unlock()
		h.hear(id, *f.Report)
		return nil
	})
	cancel(err)
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, io.EOF) && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// send writes the table now and after every change, and skips outdated ones. If the ingress has said that it accepts
// changes, a change is sent instead of a table where it is sufficient.
func (h *Hub) send(ctx context.Context, conn net.Conn, changes *atomic.Bool) error {
	w := json.NewEncoder(conn)
	var sent Table
	for {
		h.mu.Lock()
		t, changed := h.table, h.changed
		h.mu.Unlock()
		if t.Version > 0 {
			if err := conn.SetWriteDeadline(time.Now().Add(lostAfter)); err != nil {
				return err
			}
			f := frame{Table: &t}
			if sent.Version > 0 && changes.Load() {
				if c, ok := t.since(sent); ok {
					f = frame{Change: &c}
				}
			}
			if err := w.Encode(f); err != nil {
				return fmt.Errorf("send table: %w", err)
			}
			sent = t
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// hear and wake are called with mu held.
func (h *Hub) hear(id int, r Report) {
	h.demand.hear(id, r, time.Now())
	if r.Traffic != nil {
		h.traffic[id] = h.traffic[id].add(time.Now(), *r.Traffic)
		r.Traffic = nil
	}
	h.reports[id] = r
	h.wake()
}

func (h *Hub) wake() {
	close(h.heard)
	h.heard = make(chan struct{})
}

// Load adds up the newest reports of all ingresses.
func (h *Hub) Load() (inFlight, waiting map[string]int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	inFlight, waiting = map[string]int{}, map[string]int{}
	for r := range maps.Values(h.reports) {
		for name, n := range r.InFlight {
			inFlight[name] += n
		}
		for name, n := range r.Waiting {
			waiting[name] += n
		}
	}
	return inFlight, waiting
}

// InFlight returns the requests on each replica, by name, over all ingresses.
func (h *Hub) InFlight() map[string]int {
	inFlight, _ := h.Load()
	return inFlight
}

// Unopened waits until the list of ports that some ingress could not open differs from last, and returns it, sorted.
// Without an ingress nothing is known about ports. It ends with ctx.
func (h *Hub) Unopened(ctx context.Context, last []Unopened) ([]Unopened, error) {
	for {
		h.mu.Lock()
		var now []Unopened
		heard, known := h.heard, false
		for r := range maps.Values(h.reports) {
			if r.Covers(h.epoch, 1) { // until it routes by one of our tables it cannot know
				now, known = append(now, r.Unopened...), true
			}
		}
		h.mu.Unlock()
		slices.SortFunc(now, func(a, b Unopened) int {
			return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.App, b.App), cmp.Compare(a.Reason, b.Reason))
		})
		if now = slices.Compact(now); known && !slices.Equal(now, last) {
			return now, nil
		}
		select {
		case <-heard:
		case <-ctx.Done():
			return last, context.Cause(ctx)
		}
	}
}

// Looped waits until a request was ended because it came to the same app again and again, at least every after told[app],
// and returns that app and when. It ends with ctx.
func (h *Hub) Looped(ctx context.Context, told map[string]time.Time, every time.Duration) (app string, at time.Time, err error) {
	for {
		h.mu.Lock()
		heard := h.heard
		for one := range maps.Values(h.traffic) {
			last := one[len(one)-1]
			for name, ago := range last.Loops {
				if when := last.at.Add(-ago); when.Sub(told[name]) >= every && when.After(at) {
					app, at = name, when
				}
			}
		}
		h.mu.Unlock()
		if app != "" {
			return app, at, nil
		}
		select {
		case <-heard:
		case <-ctx.Done():
			return "", at, context.Cause(ctx)
		}
	}
}

// Answered reports whether a byte of a response has come from a replica since that time. Reports are up to reportEvery
// old, so it is also true for bytes that came that much earlier, or twice that on a busy machine where the two roles
// compete.
func (h *Hub) Answered(replica string, since time.Time) bool {
	since = since.Add(-2 * reportEvery)
	h.mu.Lock()
	defer h.mu.Unlock()
	for one := range maps.Values(h.traffic) {
		last := one[len(one)-1] // a history has at least one moment
		if ago, ok := last.Heard[replica]; ok && last.at.Add(-ago).After(since) {
			return true
		}
	}
	return false
}

// Rates adds up the traffic of all ingresses over the last seconds.
func (h *Hub) Rates() Rates {
	h.mu.Lock()
	all := slices.Collect(maps.Values(h.traffic)) // the contents of a history never change
	h.mu.Unlock()
	r := Rates{Replicas: map[string]Rate{}, Refused: map[string]float64{}}
	for _, one := range all {
		one.addTo(&r)
	}
	return r
}

// Applied waits until every connected ingress routes by table version or a later one. It ends with ctx.
func (h *Hub) Applied(ctx context.Context, version uint64) error {
	return h.await(ctx, func(r Report) bool { return r.Covers(h.epoch, version) })
}

// Drained waits until every connected ingress routes by table version or a later one and has no request on replica.
// Without any ingress it is true at once. It ends with ctx.
func (h *Hub) Drained(ctx context.Context, version uint64, replica string) error {
	return h.await(ctx, func(r Report) bool { return r.Covers(h.epoch, version) && r.InFlight[replica] == 0 })
}

// await waits until yes is true for the newest report of every ingress.
func (h *Hub) await(ctx context.Context, yes func(Report) bool) error {
	for {
		h.mu.Lock()
		all, heard := true, h.heard
		for r := range maps.Values(h.reports) {
			all = all && yes(r)
		}
		h.mu.Unlock()
		if all {
			return nil
		}
		select {
		case <-heard:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
