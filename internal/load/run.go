package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Plan says when requests are sent. Either Arrivals (open loop) or Clients (closed loop) is set.
type Plan struct {
	Arrivals iter.Seq[Arrival]
	Endless  bool // arrivals have no end of their own
	Clients  int
	Think    time.Duration // of each client, between an answer and its next request
	Words    string        // the plan for people, such as "100/s"

	Duration       time.Duration // nothing is sent that is due later
	Count          int64         // nothing is sent beyond
	MaxOutstanding int           // in the open loop: requests under way at a time
}

// Limits of a plan.
const (
	MaxDuration    = maxTime
	MaxOutstanding = 100_000
)

// ErrPlan is wrapped by New's errors about an invalid Plan.
var ErrPlan = errors.New("plan")

func (p *Plan) validate() error {
	fault := func(format string, args ...any) error {
		return fmt.Errorf("%w: %w", ErrPlan, fmt.Errorf(format, args...))
	}
	switch {
	case (p.Arrivals == nil) == (p.Clients == 0):
		return fault("want arrivals or clients")
	case p.Clients < 0 || p.Clients > MaxOutstanding:
		return fault("clients: want 1 to %d, got %d", MaxOutstanding, p.Clients)
	case p.Think < 0 || p.Clients == 0 && p.Think != 0:
		return fault("think time: want 0 or more, and clients, got %s", p.Think)
	case p.Duration <= 0 || p.Duration > MaxDuration:
		return fault("duration: want more than 0 and up to %s, got %s", MaxDuration, p.Duration)
	case p.Count <= 0:
		return fault("count: want 1 or more, got %d", p.Count)
	case p.Arrivals != nil && (p.MaxOutstanding < 1 || p.MaxOutstanding > MaxOutstanding):
		return fault("outstanding: want 1 to %d, got %d", MaxOutstanding, p.MaxOutstanding)
	}
	return nil
}

// CheckRate returns an error if a rate is out of range.
func CheckRate(perSecond float64) error {
	if !(perSecond > 0 && perSecond <= maxRate) {
		return fmt.Errorf("want a rate above 0 and up to %.0f a second, got %v", maxRate, perSecond)
	}
	return nil
}

// Load is a run that is ready to start.
type Load struct {
	req    Request
	plan   Plan
	bodies *bodies
	target Target
	sender sender
	tally  *tally
	note   string // about the plan

	watch stopwatch
}

// New checks a request and a plan and looks up the target's address. records, if not nil, gets one JSON line per request.
func New(ctx context.Context, req Request, plan Plan, records io.Writer) (*Load, error) {
	if err := plan.validate(); err != nil {
		return nil, err
	}
	u, err := req.validate()
	if err != nil {
		return nil, err
	}
	l := &Load{req: req, plan: plan, tally: newTally(records, plan.Duration)}
	if l.bodies, err = newBodies(&l.req); err != nil {
		return nil, err
	}
	if l.target, err = findTarget(ctx, u, req.Resolve); err != nil {
		return nil, err
	}
	switch {
	case req.Major == 2:
		l.sender = newHTTP2(&l.req, u, l.target, &l.watch)
	case strings.HasPrefix(u.Scheme, "ws"):
		l.sender = webSocket{newHTTP1(&l.req, u, l.target, &l.watch)}
	default:
		l.sender = newHTTP1(&l.req, u, l.target, &l.watch)
	}
	return l, nil
}

func (l *Load) atCount() string {
	return fmt.Sprintf("the count of %d requests was reached before the duration of %s", l.plan.Count, l.plan.Duration)
}

// Target returns the target of the requests.
func (l *Load) Target() Target { return l.target }

// Run sends all requests and waits for the responses. When ctx ends, the run ends too: requests in flight fail as Stopped, and
// the summary covers what was sent. When Run returns, its connections are closed and its goroutines have ended.
func (l *Load) Run(ctx context.Context) (*Summary, *Timeline, error) {
	cpu := cpuTime()
	l.watch.start = time.Now()
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		l.sender.close()
	})
	var openErr error
	if l.plan.Arrivals != nil {
		openErr = l.open(ctx)
	} else {
		l.closed(ctx)
	}
	if !stop() {
		<-closed
	}
	l.sender.close()
	elapsed := l.watch.now()
	if openErr != nil {
		return nil, nil, openErr
	}

	s, err := l.tally.summary(elapsed)
	s.URL, s.Address, s.Arrivals, s.Started = l.req.URL, l.target.Address, l.plan.Words, l.watch.start.UTC().Round(0)
	s.MaxOutstanding = max(l.plan.MaxOutstanding, l.plan.Clients)
	s.Connections = l.sender.opened()
	s.GeneratorCPU = (cpuTime() - cpu).Seconds()
	if l.plan.Clients > 0 && s.Requests == l.plan.Count {
		l.note = l.atCount()
	}
	if l.plan.Clients > 0 {
		s.Lag = nil // nothing was due at a time
	}
	s.note()
	if l.note != "" {
		s.Notes = append(s.Notes, l.note)
	}
	if ctx.Err() != nil {
		s.Notes = append(s.Notes, "the run was stopped before its end")
	}
	return s, l.tally.timeline, err
}

// job is a request that is due.
type job struct {
	n    int64
	a    Arrival
	held bool
}

// open sends each request when it is due, regardless of the requests before it.
func (l *Load) open(ctx context.Context) error {
	alarm, err := newAlarm()
	if err != nil {
		return err
	}
	defer alarm.close()
	defer context.AfterFunc(ctx, alarm.off)()
	var wg sync.WaitGroup
	defer wg.Wait()
	jobs := make(chan job)
	defer close(jobs)
	places := make(chan struct{}, l.plan.MaxOutstanding)
	var heldUntil time.Duration // what was due before has been held back with the one that waited for a place
	var n int64
	for a := range l.plan.Arrivals {
		if a.At >= l.plan.Duration {
			if l.plan.Endless {
				break
			}
			l.note = fmt.Sprintf("arrivals went on; the run's duration of %s ended them", l.plan.Duration)
			break
		}
		if n == l.plan.Count {
			l.note = l.atCount()
			break
		}
		if !l.until(ctx, alarm, a.At) {
			break
		}
		j := job{n: n, a: a, held: a.At < heldUntil}
		n++
		select {
		case places <- struct{}{}:
		default:
			j.held = true
			ok := l.place(ctx, places, a.At+l.req.Timeout)
			heldUntil = l.watch.now()
			if !ok && ctx.Err() != nil {
				l.giveUp(j, Stopped)
				return nil
			}
			if !ok {
				l.giveUp(j, Unsent)
				continue
			}
		}
		l.tally.begin(a.At, j.held)
		select {
		case jobs <- j:
		default:
			wg.Go(func() { l.work(ctx, j, jobs, places) })
		}
	}
	return nil
}

// until waits for a time in the run, and reports whether it came before the end of the run.
func (l *Load) until(ctx context.Context, alarm *alarm, at time.Duration) bool {
	for ctx.Err() == nil {
		wait := at - l.watch.now()
		if wait <= 0 {
			return true
		}
		if alarm.sleep(wait) != nil {
			return false
		}
	}
	return false
}

// place waits for another request to end, up to a time of the run.
func (l *Load) place(ctx context.Context, places chan<- struct{}, limit time.Duration) bool {
	t := time.NewTimer(limit - l.watch.now())
	defer t.Stop()
	select {
	case places <- struct{}{}:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}

func (l *Load) giveUp(j job, why Class) {
	l.tally.begin(j.a.At, j.held)
	l.tally.end(&Record{
		N: j.n, Scheduled: j.a.At, LastByte: l.watch.now(), Held: j.held, Error: why,
		Detail: "no place among the outstanding requests",
	})
}

// work sends one request after another until there are no more.
func (l *Load) work(ctx context.Context, j job, jobs <-chan job, places <-chan struct{}) {
	s, buf := l.scratch()
	for ok := true; ok; j, ok = <-jobs {
		l.one(ctx, j, s, buf)
		<-places
	}
}

func (l *Load) scratch() (*scratch, *bytes.Buffer) {
	return &scratch{in: make([]byte, piece), tally: l.tally}, &bytes.Buffer{}
}

// one sends a request that is already counted as started.
func (l *Load) one(ctx context.Context, j job, s *scratch, buf *bytes.Buffer) {
	rec := Record{N: j.n, Scheduled: j.a.At, Held: j.held}
	body, err := l.bodies.of(j.n, j.a, buf)
	rec.Sent = l.watch.now()
	if err != nil {
		rec.LastByte, rec.Error, rec.Detail = rec.Sent, Body, err.Error()
	} else {
		l.sender.send(ctx, s, body, &rec)
	}
	s.flush()
	l.tally.end(&rec)
}

// closed runs the closed loop: each client sends a request and waits for the response, over and over.
func (l *Load) closed(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	var next atomic.Int64
	for range l.plan.Clients {
		wg.Go(func() {
			s, buf := l.scratch()
			for {
				at := l.watch.now()
				n := next.Add(1) - 1
				if at >= l.plan.Duration || n >= l.plan.Count || ctx.Err() != nil {
					return
				}
				l.tally.begin(at, false)
				l.one(ctx, job{n: n, a: Arrival{At: at}}, s, buf)
				if !l.think(ctx) {
					return
				}
			}
		})
	}
}

// think pauses between two requests of a client.
func (l *Load) think(ctx context.Context) bool {
	if l.plan.Think == 0 {
		return true
	}
	wait := min(l.plan.Think, l.plan.Duration-l.watch.now())
	if wait <= 0 {
		return false
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
