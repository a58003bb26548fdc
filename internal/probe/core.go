package probe

import (
	"errors"
	"time"

	"penstock/internal/resource"
)

// With resource.Fast, a container that has not succeeded yet is probed again after 1, 2, 4 ... 100 ms. This is often enough
// to use a replica as soon as it is ready, and rare enough to cost a loading process nothing.
const (
	quickest = time.Millisecond
	quick    = 100 * time.Millisecond
)

// openLong is how long a port answers without a success before that is worth a hint. Most programs open their port when they
// have loaded.
const openLong = 30 * time.Second

// Core decides when a container is probed and what the results mean. It reads no clock, does no I/O, and is not safe for
// concurrent use.
type Core struct {
	fast   bool
	killed bool
	// loaded is set if failures of the liveness probe count: the container has been ready, or its readiness is not what
	// says whether it has loaded.
	loaded bool
	checks []check
}

type check struct {
	Check
	due    time.Time
	asking bool
	// pause is the time until the next probe before the first success, with resource.Fast.
	pause time.Duration
	// counts is the earliest start of a probe whose failure counts. Earlier probes are extra ones of resource.Fast.
	counts    time.Time
	good, bad int // in a row
	busy      int // in a row
	early     int // in a row
	once      bool
	open      time.Time // since when it is answered, without a success
	told      bool      // that this has lasted long
	passing   bool
}

// Verdict is the meaning of one probe result.
type Verdict struct {
	Check Check
	// Err is the reason of a failure, or nil for a success.
	Err error
	// Counted is set for a failure that counts towards the threshold. Failures is the number of such failures in a row.
	Counted  bool
	Failures int
	// Busy is set for a failure that does not count because the replica was sending responses. It is the number of such
	// failures in a row.
	Busy int
	// Loading is set for a failure of the liveness probe that does not count because the container has not been ready yet.
	// It is the number of such failures in a row.
	Loading int
	// Open is set once, for a failure of a check that has been answered for openLong and has never succeeded. It says how
	// long that has been.
	Open time.Duration
	// Kill says that the container must be restarted.
	Kill bool
	// Changed is set if Started or Ready changed.
	Changed        bool
	Started, Ready bool
}

// NewCore returns the state of a container whose process started at that time and has not been probed. ready says whether the
// process has been ready before, under an earlier Core.
func NewCore(checks []Check, started time.Time, ready bool, b resource.Behaviour) *Core {
	c := &Core{fast: b != resource.Azure}
	c.loaded = !c.fast || ready || !judged(checks)
	for _, k := range checks {
		first := started.Add(k.InitialDelay)
		s := check{Check: k, due: first, counts: first, pause: quickest, passing: k.Type == resource.Liveness}
		if c.fast && k.Type != resource.Liveness {
			s.due = started // the readiness probe runs as soon as the startup probe has succeeded
		}
		c.checks = append(c.checks, s)
	}
	return c
}

// judged reports whether it is the readiness of a container that tells whether it has loaded. A startup probe of its own says so
// itself, and limits how long loading may take.
func judged(checks []Check) bool {
	readiness := false
	for _, k := range checks {
		if k.Type == resource.Startup && !k.Implicit {
			return false
		}
		readiness = readiness || k.Type == resource.Readiness
	}
	return readiness
}

// Started reports whether the startup probe has succeeded, or there is none.
func (c *Core) Started() bool { return c.all(resource.Startup) }

// Ready reports whether the container may get requests.
func (c *Core) Ready() bool { return c.Started() && c.all(resource.Readiness) }

func (c *Core) all(t resource.ProbeType) bool {
	for i := range c.checks {
		if c.checks[i].Type == t && !c.checks[i].passing {
			return false
		}
	}
	return true
}

// Due returns the checks to run now and the time until the next one is due. Each returned check must be followed by Answer.
// A negative wait means that no check is due before the next result.
func (c *Core) Due(now time.Time) (ask []int, wait time.Duration) {
	wait = -1
	if c.killed {
		return nil, wait
	}
	started := c.Started()
	for i := range c.checks {
		s := &c.checks[i]
		over := s.Type == resource.Startup && s.passing
		if s.asking || over || s.Type != resource.Startup && !started {
			continue
		}
		if left := s.due.Sub(now); left > 0 {
			if wait < 0 || left < wait {
				wait = left
			}
			continue
		}
		s.asking = true
		ask = append(ask, i)
	}
	return ask, wait
}

// Check returns the i-th check.
func (c *Core) Check(i int) Check { return c.checks[i].Check }

// Answer records the result of check i, with the times at which it was started and finished.
func (c *Core) Answer(i int, asked, came time.Time, err error) Verdict {
	s := &c.checks[i]
	wasStarted, wasReady := c.Started(), c.Ready()
	s.asking = false
	v := Verdict{Check: s.Check, Err: err}
	if err == nil {
		c.success(s, asked, came)
	} else {
		switch {
		case s.Type == resource.Liveness && !c.loaded:
			v.Loading = c.wait(s, asked, came)
		case c.fast && s.Type == resource.Liveness && errors.Is(err, ErrBusy):
			v.Busy = c.spare(s, asked, came)
		default:
			v.Counted = c.failure(s, asked, came)
			v.Failures = s.bad
		}
		v.Open = s.answered(came, err)
		if v.Counted && s.bad >= s.FailureThreshold {
			v.Kill = c.fails(s)
		}
	}
	c.killed = c.killed || v.Kill
	v.Started, v.Ready = c.Started(), c.Ready()
	c.loaded = c.loaded || v.Ready
	v.Changed = v.Started != wasStarted || v.Ready != wasReady
	return v
}

// answered notes a failure, and returns for how long the check has been answered without a success if that is long and was
// not returned before.
func (s *check) answered(came time.Time, err error) time.Duration {
	if _, status := errors.AsType[statusError](err); !status || s.once || s.told {
		return 0
	}
	if s.open.IsZero() {
		s.open = came
	}
	open := came.Sub(s.open)
	if s.told = open >= openLong; !s.told {
		return 0
	}
	return open
}

func (c *Core) success(s *check, asked, came time.Time) {
	s.good, s.bad, s.busy, s.early, s.once = s.good+1, 0, 0, 0, true
	if s.good >= s.SuccessThreshold {
		s.passing = true
	}
	s.due = later(c.next(s, asked), came)
}

// next returns when a check that has succeeded is due again: after its period, which resource.Fast shifts by up to a twentieth, once,
// to a round time of day. So the checks of many containers are due at the same moments, and a process that wakes up less often uses
// less CPU time.
func (c *Core) next(s *check, asked time.Time) time.Time {
	due := asked.Add(s.Period)
	if c.fast {
		for _, round := range [...]time.Duration{time.Second, 500 * time.Millisecond, 100 * time.Millisecond} {
			if round <= s.Period/10 {
				return due.Add(due.Round(round).Sub(due)) // and keep the monotonic clock
			}
		}
	}
	return due
}

// spare records a failure that does not count. Responses to other requests show that the container is alive, so they also
// end a series of failures.
func (c *Core) spare(s *check, asked, came time.Time) int {
	s.good, s.bad, s.busy = 0, 0, s.busy+1
	s.due = later(asked.Add(s.Period), came)
	return s.busy
}

// wait records a failure of the liveness probe of a container that is still loading.
func (c *Core) wait(s *check, asked, came time.Time) int {
	s.good, s.early = 0, s.early+1
	s.due = later(asked.Add(s.Period), came)
	return s.early
}

// failure records a failure and reports whether it counts.
func (c *Core) failure(s *check, asked, came time.Time) bool {
	s.good, s.busy = 0, 0
	s.due = later(asked.Add(s.Period), came)
	if c.fast && !s.once && s.Type != resource.Liveness {
		s.due = came.Add(s.pause)
		s.pause = min(2*s.pause, quick)
	}
	if asked.Before(s.counts) {
		return false
	}
	s.bad++
	// Count one period after the other from the end of the initial delay, so that extra probes do not extend the time that
	// a container has. After a long gap, count from now.
	s.counts = s.counts.Add(s.Period)
	if !s.counts.After(asked) {
		s.counts = asked.Add(s.Period)
	}
	return true
}

// fails applies a check that has reached its threshold, and reports whether the container must be killed.
func (c *Core) fails(s *check) bool {
	if s.Type == resource.Readiness {
		s.passing = false
		return false
	}
	// Loading a model may take any time. Only a user's own probe limits it.
	return !s.Implicit || !c.fast
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
