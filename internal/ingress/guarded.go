package ingress

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"penstock/internal/accesslog"
	"penstock/internal/ingress/front"
	"penstock/internal/ingress/room"
	"penstock/internal/ingress/upstream"
	"penstock/internal/link"
	"penstock/internal/resource"
)

// guardedRoom is the room of a revision, or of an app that has no revision yet. It adds to room.Room a lock, the pools of
// connections to the replicas, a timer for deadlines, and channels for those who wait.
type guardedRoom struct {
	name string // the revision's ID; "" for an app without one
	in   *Ingress

	connections atomic.Int64 // of clients, whose last request came here

	mu      sync.Mutex
	room    *room.Room
	timer   *time.Timer // calls expire; nil until somebody waits
	due     time.Time   // when the timer fires; zero while it is not set
	refused uint64      // requests that got no replica
	ended   uint64      // requests that a replica has served
	served  time.Duration
	told    link.Load // what the last report said
	stage   resource.Stage
	staged  chan struct{} // closed when stage changes; nil when nobody follows
}

// replica is the value of a room.Replica.
type replica struct {
	*room.Replica
	pool  *upstream.Pool
	addr  string        // guarded by the room's mu
	tally link.Tally    // likewise
	since time.Time     // when it came into the room
	start time.Duration // how long its start took until its program ran
	load  time.Duration // how long its program then took to be ready
}

// ticket is the claim of a request or connection to a place. It is the value of its room.Ticket while that waits.
type ticket struct {
	room.Ticket

	// What it is routed by: a host, a port for a connection of a TCP app, or a host and the app's own port, and where it
	// comes from.
	host string
	port int
	door int
	from netip.Addr

	settings resource.Settings // of the revision, when it gave the place
	addr     string            // of the replica, likewise
	held     time.Duration     // how long the ticket has waited so far
	woken    *replica          // that the ticket waited for until it was ready; nil if there is none
	follower follower          // nil for a connection of a TCP app
	ended    chan struct{}     // receives when the wait has ended; takes one without blocking
}

func newRoom(name string, in *Ingress) *guardedRoom {
	return &guardedRoom{name: name, in: in, room: room.New(in.began)}
}

// claim returns a replica that has a place for the request, and waits for one if need be. The caller releases it. A wait
// ends with ctx, and when gone, which may be nil, returns true.
func (g *guardedRoom) claim(ctx context.Context, t *ticket, gone func() bool) (*replica, error) {
	now := time.Now()
	g.mu.Lock()
	got, err := g.room.Claim(&t.Ticket, now)
	if g.grown() {
		g.in.nudge()
	}
	if err == nil {
		r := g.give(t, got)
		g.mu.Unlock()
		return r, nil
	}
	if !errors.Is(err, room.ErrWaits) {
		g.mu.Unlock()
		return nil, err
	}
	t.Value, t.ended = t, make(chan struct{}, 1)
	t.settings = g.room.Config().Settings
	follower := t.follower
	if follower != nil && !follower.follows(t.settings.Progress && len(g.room.Replicas()) == 0) {
		follower = nil
	}
	g.setTimer()
	g.mu.Unlock()
	g.in.stats[0].held.Add(1) // seldom enough
	return g.wait(ctx, t, now, gone, follower)
}

// lookEvery is how often a wait asks whether its client is still there, where nothing tells it.
const lookEvery = 500 * time.Millisecond

func (g *guardedRoom) wait(ctx context.Context, t *ticket, began time.Time, gone func() bool, follower follower) (*replica, error) {
	defer func() { t.held += time.Since(began) }()
	var look <-chan time.Time
	if gone != nil {
		tick := time.NewTicker(lookEvery)
		defer tick.Stop()
		look = tick.C
	}
	var staged <-chan struct{}
	var beat <-chan time.Time
	if follower != nil {
		tick := time.NewTicker(g.in.cfg.Heartbeat)
		defer tick.Stop()
		beat = tick.C
		stage, next := g.follow()
		if err := follower.passed(stage); err != nil {
			return nil, g.leave(t, err)
		}
		staged = next
	}
	for {
		select {
		case <-t.ended:
			got, err := t.Outcome()
			if err != nil {
				return nil, err
			}
			r := got.Value.(*replica)
			switch {
			case ctx.Err() != nil:
				err = context.Cause(ctx)
			case gone != nil && gone():
				err = front.ErrClientGone
			default:
				return r, nil
			}
			g.release(r, nil, time.Now())
			return nil, err
		case <-ctx.Done():
			return nil, g.leave(t, context.Cause(ctx))
		case <-look:
			if gone() {
				return nil, g.leave(t, front.ErrClientGone)
			}
		case <-staged:
			stage, next := g.follow()
			if err := follower.passed(stage); err != nil {
				return nil, g.leave(t, err)
			}
			staged = next
		case <-beat:
			if err := follower.still(); err != nil {
				return nil, g.leave(t, err)
			}
		}
	}
}

// follow returns how far the start of the first replica has come, and what is closed when that changes.
func (g *guardedRoom) follow() (resource.Stage, <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.staged == nil {
		g.staged = make(chan struct{})
	}
	return cmp.Or(g.stage, resource.StageQueued), g.staged
}

// setStage is called with mu held.
func (g *guardedRoom) setStage(s resource.Stage) {
	if s != g.stage && g.staged != nil {
		close(g.staged)
		g.staged = nil
	}
	g.stage = s
}

// leave takes t out of the line, or gives back the place that it got in the same moment. It returns err.
func (g *guardedRoom) leave(t *ticket, err error) error {
	now := time.Now()
	g.mu.Lock()
	waited := g.room.Leave(&t.Ticket, now)
	if waited && g.room.Waiting() == 0 {
		g.in.nudge()
		g.setTimer()
	}
	g.mu.Unlock()
	if !waited {
		if got, _ := t.Outcome(); got != nil {
			g.release(got.Value.(*replica), nil, now)
		}
	}
	return err
}

// give notes in t what holds for its place. It is called with mu held.
func (g *guardedRoom) give(t *ticket, got *room.Replica) *replica {
	r := got.Value.(*replica)
	t.settings, t.addr, t.woken = g.room.Config().Settings, r.addr, nil
	if r.since.After(t.Arrived) {
		t.woken = r
	}
	return r
}

// wake tells tickets that their wait has ended. It is called with mu held, after everything that may end a wait.
func (g *guardedRoom) wake() {
	settled := g.room.Settled()
	if len(settled) == 0 {
		return
	}
	for _, s := range settled {
		t := s.Value.(*ticket)
		if got, err := s.Outcome(); err == nil {
			g.give(t, got)
		}
		t.ended <- struct{}{}
	}
	clear(settled) // requests are used again
	if g.room.Waiting() == 0 {
		g.in.nudge()
		g.setTimer()
	}
}

// setTimer has expire called at the next deadline or before it. It is called with mu held, when that has come nearer and
// when nobody waits any more.
func (g *guardedRoom) setTimer() {
	at, ok := g.room.NextDeadline()
	switch {
	case !ok:
		if g.timer != nil {
			g.timer.Stop()
		}
		g.due = time.Time{}
	case !g.due.IsZero() && !at.Before(g.due):
	case g.timer == nil:
		g.due, g.timer = at, time.AfterFunc(time.Until(at), g.expire)
	default:
		g.due = at
		g.timer.Reset(time.Until(at))
	}
}

// expire refuses those who have waited for too long.
func (g *guardedRoom) expire() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.due = time.Time{}
	g.room.Expire(time.Now())
	g.wake()
	g.setTimer()
}

// release gives a place back. It counts the request of rec as served by r; nil means that the place was not used to the end.
// Both happen under the lock that a place costs anyway.
func (g *guardedRoom) release(r *replica, rec *accesslog.Record, now time.Time) {
	g.mu.Lock()
	if rec != nil {
		g.ended++
		g.served += rec.Duration - rec.Held
		r.tally.Requests++
		if rec.Status >= http.StatusInternalServerError || rec.Proto == accesslog.ProtoTCP && rec.Flags&accesslog.FlagUpstreamTermination != 0 {
			r.tally.Errors++
		}
		took := rec.Duration
		if rec.Status == http.StatusSwitchingProtocols || rec.Proto == accesslog.ProtoTCP {
			took = rec.FirstByte // a tunnel lasts as long as its two ends like
		}
		r.tally.Latency.Add(took)
	}
	drained := g.room.Release(r.Replica, now)
	g.wake()
	over := drained && g.room.Over()
	g.mu.Unlock()
	if drained {
		r.pool.Close()
		g.in.nudge()
	}
	if over {
		g.in.forget(g)
	}
}

// shun notes that r did not accept a connection for t.
func (g *guardedRoom) shun(t *ticket, r *replica, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.room.Shun(&t.Ticket, r.Replica, now)
}

// open lets places be claimed. It is called before a table that has the room is used.
func (g *guardedRoom) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.room.Open()
}

// update takes over what control says of the revision. Those who wait here for a host that t routes elsewhere are sent there.
func (g *guardedRoom) update(rev link.Revision, t *table) {
	names := make([]string, len(rev.Replicas))
	for i, r := range rev.Replicas {
		names[i] = r.Name
	}
	at := func(i int) upstream.Address { return upstream.Address{Addr: rev.Replicas[i].Addr, TLS: rev.TLS} }
	config := room.Config{Settings: rev.Settings, Target: rev.Target, Failed: rev.Failed, Blocked: rev.Blocked}
	now := time.Now()

	g.mu.Lock()
	g.room.Dismiss(g.routedElsewhere(t), now)
	gone := g.room.Update(config, names, func(i int) (string, any) {
		return affinityKey(names[i]), &replica{pool: g.in.upstreams.Pool(at(i)), since: now, start: rev.Replicas[i].Start, load: rev.Replicas[i].Load}
	}, now)
	for i, got := range g.room.Replicas() {
		r := got.Value.(*replica)
		if r.Replica == nil { // requests read it without the lock
			r.Replica = got
		}
		r.addr = rev.Replicas[i].Addr
		r.pool.Reset(at(i))
	}
	if rev.Stage != "" { // otherwise a replica is ready, or nobody can follow
		g.setStage(rev.Stage)
	}
	g.wake()
	g.setTimer()
	g.mu.Unlock()
	closePools(gone)
}

// closeRoom ends the waits of a room that has left the table, and says whether it serves no request any more.
func (g *guardedRoom) closeRoom() (over bool) {
	g.mu.Lock()
	gone := g.room.Close(time.Now())
	g.wake()
	over = g.room.Over()
	g.mu.Unlock()
	closePools(gone)
	return over
}

func closePools(gone []*room.Replica) {
	for _, r := range gone {
		r.Value.(*replica).pool.Close()
	}
}

func (g *guardedRoom) over() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.room.Over()
}

// dismiss sends those away who wait here for a host that t routes elsewhere.
func (g *guardedRoom) dismiss(t *table) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.room.Dismiss(g.routedElsewhere(t), time.Now())
	g.wake()
}

func (g *guardedRoom) routedElsewhere(t *table) func(*room.Ticket) bool {
	return func(waits *room.Ticket) bool { return !t.leads(waits.Value.(*ticket), g) }
}

// grown says whether there are more requests, or connections where those count, than the replicas should have, and a tenth more than control has been told of, so
// that it should hear of it now. It is called with mu held, for each request.
func (g *guardedRoom) grown() bool {
	n, told := g.room.InFlight()+g.room.Waiting(), g.told.Now+g.told.Queued
	if g.counts() {
		n, told = int(g.connections.Load()), g.told.Open
	}
	return g.room.Grown(n, told)
}

// counts says whether an http rule of the revision counts connections. It is called with mu held.
func (g *guardedRoom) counts() bool {
	return g.room.Config().Settings.HTTPMetric == resource.MetricConnections
}

// load is what the room has counted. It is called with mu held.
func (g *guardedRoom) load(now time.Time) link.Load {
	m, open := g.room.Measure(now), 0
	if g.counts() {
		open = int(g.connections.Load())
	}
	return link.Load{
		Arrivals: m.Arrivals, Ended: g.ended, Served: g.served, Now: g.room.InFlight(), Queued: g.room.Waiting(), Open: open,
		InFlight: link.Integral{At: m.At, Sum: m.Busy}, Waiting: link.Integral{At: m.At, Sum: m.Waited},
	}
}

// report adds what is in flight and what waits.
func (g *guardedRoom) report(to *link.Report) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, list := range [][]*room.Replica{g.room.Replicas(), g.room.Leaving()} {
		for _, r := range list {
			if n := r.InFlight(); n > 0 {
				to.InFlight[r.Name] += n
			}
		}
	}
	if n := g.room.Waiting(); n > 0 {
		to.Waiting[g.name] += n
	}
	l := g.load(time.Now())
	if g.name != "" && (l.Arrivals != g.told.Arrivals || l.Ended != g.told.Ended || l.Now > 0 || l.Queued > 0 || l.Open > 0 || l.Open != g.told.Open) {
		to.Loads[g.name] = l
	}
	g.told = l
}

// countRefused counts a request that got no replica.
func (g *guardedRoom) countRefused() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refused++
}

// traffic adds what the room has counted.
func (g *guardedRoom) traffic(to *link.Traffic) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now() // under mu, so that it is not before anything that the room has been told
	l := g.load(now)
	to.Revisions[g.name] = l
	for _, list := range [][]*room.Replica{g.room.Replicas(), g.room.Leaving()} {
		for _, got := range list {
			r := got.Value.(*replica)
			if busy := g.room.Busy(got); r.tally.Requests > 0 || busy > 0 {
				tally := r.tally
				tally.InFlight = link.Integral{At: l.InFlight.At, Sum: busy}
				to.Replicas[r.Name] = tally
			}
			if at := r.pool.Heard(); !at.IsZero() {
				if ago := now.Sub(at); ago < link.HeardFor {
					to.Heard[r.Name] = ago
				}
			}
		}
	}
	if g.refused > 0 {
		to.Refused[g.name] = g.refused
	}
}

// pools appends the pools of the room's replicas.
func (g *guardedRoom) pools(to []*upstream.Pool) []*upstream.Pool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range g.room.Replicas() {
		to = append(to, r.Value.(*replica).pool)
	}
	return to
}

// explain returns the access record's flag and the text for a request that got no replica. The text names no revision, replica
// or exit code, which are for the app's events and not for clients. Busy means that another try in a second makes sense.
func (g *guardedRoom) explain(why *room.Refusal) (flag accesslog.Flags, text string, busy bool) {
	switch why.Reason {
	case room.Failed:
		return accesslog.FlagNoHealthyUpstream, "no replica of this app can be started", false
	case room.LineFull:
		return accesslog.FlagOverflow, fmt.Sprintf("%d requests wait for this app already, which is its limit", why.Waiting), true
	case room.NoPlace:
		return accesslog.FlagOverflow, fmt.Sprintf("no place became free within %v: all replicas of this app are busy", why.After), true
	}
	text = fmt.Sprintf("waited %v for a replica of this app: none became ready", why.After)
	if g.name == "" && why.Detail != "" { // the detail is the ingress's own
		text = fmt.Sprintf("waited %v for this app: %s", why.After, why.Detail)
	}
	return accesslog.FlagNoHealthyUpstream, text, true
}
