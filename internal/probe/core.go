package probe

import (
	"errors"
	"time"

	"penstock/internal/resource"
)

// Under resource.Fast a container that has not succeeded yet is asked again after 1, 2, 4 ... 100 ms: often enough that
// a replica is used as soon as it can be, seldom enough that asking costs a loading process nothing.
const (
	quickest = time.Millisecond
	quick    = 100 * time.Millisecond
)

// Core decides when a container is asked and what its answers mean. It reads no clock and does no I/O; it is not safe
// for calls at once.
type Core struct {
	fast   bool
	killed bool
	checks []check
}

type check struct {
	Check
	due    time.Time
	asking bool
	// pause is the time to the next question until the first success, under resource.Fast.
	pause time.Duration
	// counts is when a question may first be asked of which the failure counts: what was asked earlier was asked only
	// because we are fast.
	counts    time.Time
	good, bad int // in a row
	busy      int // in a row
	once      bool
	passing   bool
}

// Verdict is what one answer means.
type Verdict struct {
	Check Check
	// Err says why the answer was a failure; nil for a success.
	Err error
	// Counted is set for a failure that counts towards the threshold, and Failures is how many did so in a row.
	Counted  bool
	Failures int
	// Busy is set for a failure that does not count because the replica was answering, and is how many there were in a
	// row.
	Busy int
	// Kill says that the container is to be ended and started again.
	Kill bool
	// Changed is set when Started or Ready is not what it was.
	Changed        bool
	Started, Ready bool
}

// NewCore returns the state of a container whose process started at that time, before any question.
func NewCore(checks []Check, started time.Time, b resource.Behaviour) *Core {
	c := &Core{fast: b != resource.Azure}
	for _, k := range checks {
		first := started.Add(k.InitialDelay)
		s := check{Check: k, due: first, counts: first, pause: quickest, passing: k.Type == resource.Liveness}
		if c.fast && k.Type != resource.Liveness {
			s.due = started // readiness is asked as soon as the startup probe has let it
		}
		c.checks = append(c.checks, s)
	}
	return c
}

// Started says whether the startup probe, if there is one, has succeeded.
func (c *Core) Started() bool { return c.all(resource.Startup) }

// Ready says whether the container may be given requests.
func (c *Core) Ready() bool { return c.Started() && c.all(resource.Readiness) }

func (c *Core) all(t resource.ProbeType) bool {
	for i := range c.checks {
		if c.checks[i].Type == t && !c.checks[i].passing {
			return false
		}
	}
	return true
}

// Due returns the checks to ask now, of which the answers are expected, and how long it is until the next one is due:
// a negative wait means that none is before another answer.
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

// Answer takes the answer to check i, which was asked at one time and came at another.
func (c *Core) Answer(i int, asked, came time.Time, err error) Verdict {
	s := &c.checks[i]
	wasStarted, wasReady := c.Started(), c.Ready()
	s.asking = false
	v := Verdict{Check: s.Check, Err: err}
	if err == nil {
		c.success(s, asked, came)
	} else {
		if c.fast && s.Type == resource.Liveness && errors.Is(err, ErrBusy) {
			v.Busy = c.spare(s, asked, came)
		} else {
			v.Counted = c.failure(s, asked, came)
			v.Failures = s.bad
		}
		if v.Counted && s.bad >= s.FailureThreshold {
			v.Kill = c.fails(s)
		}
	}
	c.killed = c.killed || v.Kill
	v.Started, v.Ready = c.Started(), c.Ready()
	v.Changed = v.Started != wasStarted || v.Ready != wasReady
	return v
}

func (c *Core) success(s *check, asked, came time.Time) {
	s.good, s.bad, s.busy, s.once = s.good+1, 0, 0, true
	if s.good >= s.SuccessThreshold {
		s.passing = true
	}
	s.due = later(asked.Add(s.Period), came)
}

// spare notes a failure that does not count: what others were sent is as good a sign of life as an answer, so it ends a
// row of failures too.
func (c *Core) spare(s *check, asked, came time.Time) int {
	s.good, s.bad, s.busy = 0, 0, s.busy+1
	s.due = later(asked.Add(s.Period), came)
	return s.busy
}

// failure notes a failure and says whether it counts.
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
	// One period after the other from the end of the delay, so that asking often does not stretch the time that a
	// container has; after a long gap, from here.
	s.counts = s.counts.Add(s.Period)
	if !s.counts.After(asked) {
		s.counts = asked.Add(s.Period)
	}
	return true
}

// fails applies a check that has reached its threshold and says whether the container is to be killed.
func (c *Core) fails(s *check) bool {
	if s.Type == resource.Readiness {
		s.passing = false
		return false
	}
	// Loading a model takes as long as it takes; only a user's own probe sets an end to it.
	return !s.Implicit || !c.fast
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
