package probe_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"penstock/internal/probe"
	"penstock/internal/resource"
)

var errRefused = errors.New("refused")

// step is an answer of a simulated container.
type step struct {
	at time.Duration
	probe.Verdict
}

// simulate asks a container that answers at once until time is over or it is killed.
func simulate(checks []probe.Check, b resource.Behaviour, until time.Duration, answer func(resource.ProbeType, time.Duration) error) []step {
	return simulateProcess(checks, false, b, until, answer)
}

// simulateProcess is simulate for a process that has been ready before, or has not.
func simulateProcess(checks []probe.Check, before bool, b resource.Behaviour, until time.Duration, answer func(resource.ProbeType, time.Duration) error) []step {
	start := time.Unix(0, 0)
	core := probe.NewCore(checks, start, before, b)
	var steps []step
	for now := start; now.Sub(start) <= until; {
		due, wait := core.Due(now)
		for _, i := range due {
			at := now.Sub(start)
			v := core.Answer(i, now, now, answer(core.Check(i).Type, at))
			steps = append(steps, step{at, v})
			if v.Kill {
				return steps
			}
		}
		if len(due) > 0 {
			continue // an answer may have made another check due
		}
		if wait < 0 {
			break
		}
		now = now.Add(wait)
	}
	return steps
}

func asked(steps []step, t resource.ProbeType) (at []time.Duration) {
	for _, s := range steps {
		if s.Check.Type == t {
			at = append(at, s.at)
		}
	}
	return at
}

func first(steps []step, ok func(step) bool) (time.Duration, bool) {
	i := slices.IndexFunc(steps, ok)
	if i < 0 {
		return 0, false
	}
	return steps[i].at, true
}

func ready(s step) bool { return s.Ready }
func kill(s step) bool  { return s.Kill }

// from answers well from that time on.
func from(open time.Duration) func(resource.ProbeType, time.Duration) error {
	return func(_ resource.ProbeType, at time.Duration) error {
		if at < open {
			return errRefused
		}
		return nil
	}
}

const never = 1000 * time.Hour

func ms(list ...int) (d []time.Duration) {
	for _, n := range list {
		d = append(d, time.Duration(n)*time.Millisecond)
	}
	return d
}

func TestImplicitProbes(t *testing.T) {
	if list := probe.Checks(nil, 0, resource.Azure); len(list) != 0 {
		t.Errorf("without ingress: want no probes, got %+v", list)
	}
	tests := map[string]struct {
		own       []resource.Probe
		behaviour resource.Behaviour
		want      []string // type, implicit
	}{
		"azure adds all three":     {nil, resource.Azure, []string{"Startup true", "Readiness true", "Liveness true"}},
		"fast adds no liveness":    {nil, resource.Fast, []string{"Startup true", "Readiness true"}},
		"an own probe replaces it": {[]resource.Probe{{Type: resource.Startup, TCP: &resource.TCPSocket{Port: 1}}}, resource.Fast, []string{"Startup false", "Readiness true"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, c := range probe.Checks(test.own, 8080, test.behaviour) {
				got = append(got, fmt.Sprint(c.Type, " ", c.Implicit))
				if c.Period == 0 || c.Timeout == 0 || c.FailureThreshold == 0 || c.SuccessThreshold == 0 {
					t.Errorf("%s: want every number set, got %+v", c.Type, c.Probe)
				}
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

// Where nobody has named the port, readiness means one that was found too, whatever else is asked.
func TestImplicitProbesOfAPortThatNobodyNamed(t *testing.T) {
	own := []resource.Probe{
		{Type: resource.Startup, TCP: &resource.TCPSocket{Port: 1}},
		{Type: resource.Readiness, HTTP: &resource.HTTPGet{Port: 2}},
	}
	for name, test := range map[string]struct {
		own  []resource.Probe
		want []string // type, port
	}{
		"without own probes": {nil, []string{"Startup -1", "Readiness -1"}},
		"with own probes":    {own, []string{"Startup 1", "Readiness 2", "Readiness -1"}},
	} {
		var got []string
		for _, c := range probe.Checks(test.own, probe.Detected, resource.Fast) {
			port := 0
			if c.TCP != nil {
				port = c.TCP.Port
			} else {
				port = c.HTTP.Port
			}
			got = append(got, fmt.Sprint(c.Type, " ", port))
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}

func TestAzureDefaultStartup(t *testing.T) {
	checks := probe.Checks(nil, 8080, resource.Azure)
	steps := simulate(checks, resource.Azure, time.Hour, from(never))
	at := asked(steps, resource.Startup)
	if len(at) != 240 || at[0] != time.Second || at[1] != 2*time.Second {
		t.Errorf("closed port: want it asked 240 times, every second from 1 s, got %d: %v ...", len(at), at[:min(3, len(at))])
	}
	if end, ok := first(steps, kill); !ok || end != 240*time.Second {
		t.Errorf("closed port: want it killed after 240 s, got %s, %t", end, ok)
	}
	if len(asked(steps, resource.Readiness))+len(asked(steps, resource.Liveness)) > 0 {
		t.Error("want nothing else asked before the startup probe has succeeded")
	}
}

func TestAzureReadyOnSchedule(t *testing.T) {
	checks := probe.Checks(nil, 8080, resource.Azure)
	tests := map[string]struct{ opens, want time.Duration }{
		"opens at once: the readiness delay": {0, 3 * time.Second},
		"opens after the delay: next second": {4500 * time.Millisecond, 5 * time.Second},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if at, ok := first(simulate(checks, resource.Azure, time.Minute, from(test.opens)), ready); !ok || at != test.want {
				t.Errorf("port open from %s: ready at %s (%t), want %s", test.opens, at, ok, test.want)
			}
		})
	}
}

func TestFastAsksOften(t *testing.T) {
	checks := probe.Checks(nil, 8080, resource.Fast)
	steps := simulate(checks, resource.Fast, 400*time.Millisecond, from(never))
	if got, want := asked(steps, resource.Startup), ms(0, 1, 3, 7, 15, 31, 63, 127, 227, 327); !slices.Equal(got, want) {
		t.Errorf("closed port asked at %v, want %v", got, want)
	}
	for opens, want := range map[time.Duration]time.Duration{
		0: 0, 20 * time.Millisecond: 31 * time.Millisecond, 300 * time.Millisecond: 327 * time.Millisecond,
	} {
		if at, ok := first(simulate(checks, resource.Fast, time.Minute, from(opens)), ready); !ok || at != want {
			t.Errorf("port open from %s: ready at %s (%t), want %s", opens, at, ok, want)
		}
	}
}

func TestFastImplicitNeverKills(t *testing.T) {
	checks := probe.Checks(nil, 8080, resource.Fast)
	steps := simulate(checks, resource.Fast, time.Hour, from(59*time.Minute))
	if at, ok := first(steps, kill); ok {
		t.Errorf("killed at %s, want never", at)
	}
	if at, ok := first(steps, ready); !ok || at > 59*time.Minute+100*time.Millisecond {
		t.Errorf("port open from 59m: ready at %s (%t)", at, ok)
	}
}

// A user's startup probe gives the same time in both behaviours, however often fast asks.
func TestExplicitStartupBudget(t *testing.T) {
	tests := []struct {
		delay, period time.Duration
		failures      int
		want          time.Duration
	}{
		{10 * time.Second, 5 * time.Second, 3, 20 * time.Second},
		{time.Second, 1030 * time.Millisecond, 101, 104 * time.Second}, // no multiple of how often fast asks
	}
	for _, test := range tests {
		own := []resource.Probe{{
			Type: resource.Startup, TCP: &resource.TCPSocket{Port: 8080},
			InitialDelay: test.delay, Period: test.period, FailureThreshold: test.failures,
		}}
		for _, b := range []resource.Behaviour{resource.Azure, resource.Fast} {
			steps := simulate(probe.Checks(own, 0, b), b, time.Hour, from(never))
			at, ok := first(steps, kill)
			if !ok || at < test.want || at > test.want+100*time.Millisecond {
				t.Errorf("%s: delay %s, period %s, %d failures: killed at %s (%t), want at %s", b, test.delay, test.period, test.failures, at, ok, test.want)
			}
			counted, _ := first(steps, func(s step) bool { return s.Counted })
			if counted < test.delay {
				t.Errorf("%s: a failure at %s counts, within the delay of %s", b, counted, test.delay)
			}
		}
	}
}

func TestReadinessThresholds(t *testing.T) {
	own := []resource.Probe{{
		Type: resource.Readiness, HTTP: &resource.HTTPGet{Path: "/", Port: 8080},
		Period: 10 * time.Second, FailureThreshold: 3, SuccessThreshold: 2,
	}}
	down := func(_ resource.ProbeType, at time.Duration) error {
		if at >= 60*time.Second && at < 120*time.Second {
			return errRefused
		}
		return nil
	}
	steps := simulate(probe.Checks(own, 0, resource.Azure), resource.Azure, 5*time.Minute, down)
	var changes []string
	for _, s := range steps {
		if s.Changed {
			changes = append(changes, fmt.Sprint(s.at, " ", s.Ready))
		}
		if s.Kill {
			t.Errorf("at %s: a readiness probe kills nothing", s.at)
		}
	}
	// Two successes to be ready (0, 10 s), three failures not to be (60, 70, 80 s), two successes again (120, 130 s).
	if want := []string{"10s true", "1m20s false", "2m10s true"}; !slices.Equal(changes, want) {
		t.Errorf("got %v, want %v", changes, want)
	}
}

func TestLiveness(t *testing.T) {
	own := []resource.Probe{
		{Type: resource.Startup, TCP: &resource.TCPSocket{Port: 8080}, Period: time.Second, FailureThreshold: 100},
		{Type: resource.Liveness, TCP: &resource.TCPSocket{Port: 8080}, InitialDelay: 5 * time.Second, Period: 10 * time.Second, FailureThreshold: 2},
	}
	for _, b := range []resource.Behaviour{resource.Azure, resource.Fast} {
		answer := func(p resource.ProbeType, at time.Duration) error {
			if p == resource.Startup && at < 12*time.Second || p == resource.Liveness && at > 30*time.Second {
				return errRefused
			}
			return nil
		}
		steps := simulate(probe.Checks(own, 0, b), b, time.Hour, answer)
		at := asked(steps, resource.Liveness)
		if len(at) == 0 || at[0] < 12*time.Second || at[0] > 13*time.Second {
			t.Errorf("%s: liveness asked at %v, want first when the startup probe has succeeded at 12 s", b, at)
		}
		if !slices.ContainsFunc(steps, ready) {
			t.Errorf("%s: never ready", b)
		}
		last := steps[len(steps)-1]
		if !last.Kill || last.Failures != 2 || last.at < 42*time.Second || last.at > 43*time.Second {
			t.Errorf("%s: want it killed at the second failure in a row (32, 42 s), got %+v at %s", b, last.Verdict, last.at)
		}
	}
}

// A liveness probe does not kill a model that is still loading, however long that takes, unless the app has a startup probe,
// which says how long it may take. Azure counts each failure, as Kubernetes does.
func TestLivenessSparesAModelThatLoads(t *testing.T) {
	const port = 8080
	liveness := resource.Probe{Type: resource.Liveness, HTTP: &resource.HTTPGet{Path: "/health", Port: port}, Period: 10 * time.Second, FailureThreshold: 3}
	readiness := resource.Probe{Type: resource.Readiness, HTTP: &resource.HTTPGet{Path: "/ready", Port: port}, Period: 5 * time.Second, FailureThreshold: 3}
	startup := resource.Probe{Type: resource.Startup, TCP: &resource.TCPSocket{Port: port}, Period: time.Second, FailureThreshold: 10}
	tests := map[string]struct {
		own    []resource.Probe
		port   int // of the implicit probes
		before bool
		load   time.Duration // until then, all probes over HTTP fail, and the port is open
		hang   time.Duration // from then on too
		b      resource.Behaviour
		kill   time.Duration // 0: never
	}{
		"fast waits for an hour of loading":                     {[]resource.Probe{readiness, liveness}, port, false, time.Hour, never, resource.Fast, 0},
		"fast waits for ever":                                   {[]resource.Probe{readiness, liveness}, 0, false, never, never, resource.Fast, 0},
		"fast kills what hangs once it was ready":               {[]resource.Probe{readiness, liveness}, port, false, time.Hour, 2 * time.Hour, resource.Fast, 2*time.Hour + 20*time.Second},
		"an own startup probe says how long it loads":           {[]resource.Probe{startup, readiness, liveness}, port, false, time.Hour, never, resource.Fast, 20 * time.Second},
		"with an open port as its readiness it loads no longer": {[]resource.Probe{liveness}, port, false, time.Hour, never, resource.Fast, 20 * time.Second},
		"a container that only has a liveness probe":            {[]resource.Probe{liveness}, 0, false, time.Hour, never, resource.Fast, 20 * time.Second},
		"a process that has been ready before":                  {[]resource.Probe{readiness, liveness}, port, true, time.Hour, never, resource.Fast, 20 * time.Second},
		"azure kills as Kubernetes does":                        {[]resource.Probe{readiness, liveness}, 0, false, time.Hour, never, resource.Azure, 20 * time.Second},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			loading := 0
			steps := simulateProcess(probe.Checks(test.own, test.port, test.b), test.before, test.b, 3*time.Hour, func(p resource.ProbeType, at time.Duration) error {
				if (at < test.load || at >= test.hang) && p != resource.Startup && !(p == resource.Readiness && len(test.own) == 1) {
					return errRefused
				}
				return nil
			})
			for _, s := range steps {
				if s.Loading > 0 {
					if loading++; s.Loading != loading || s.Counted || s.Failures != 0 || s.Busy != 0 {
						t.Fatalf("at %s: got %+v, want the failure %d in a row while it loads, which does not count", s.at, s.Verdict, loading)
					}
				}
			}
			at, killed := first(steps, kill)
			if killed != (test.kill > 0) || killed && (at < test.kill || at > test.kill+10*time.Second) {
				t.Errorf("killed %t at %s, want it at %s (0: never)", killed, at, test.kill)
			}
			if !killed && loading == 0 {
				t.Error("no failure was reported while it loaded")
			}
		})
	}
}

func TestNothingIsAskedTwiceAtOnce(t *testing.T) {
	start := time.Unix(0, 0)
	core := probe.NewCore(probe.Checks(nil, 8080, resource.Fast), start, false, resource.Fast)
	due, _ := core.Due(start)
	if len(due) != 1 {
		t.Fatalf("want the startup probe due, got %v", due)
	}
	later := start.Add(time.Hour)
	if again, wait := core.Due(later); len(again) != 0 || wait >= 0 {
		t.Errorf("while it is under way: want nothing due and no time to wait for, got %v, %s", again, wait)
	}
	// A slow answer is no reason to hurry: the next question is after a pause from when it came.
	core.Answer(due[0], start, later, errRefused)
	if _, wait := core.Due(later); wait != time.Millisecond {
		t.Errorf("after a slow failure: want the next question in 1ms, got %s", wait)
	}
}

// Of a container that does not answer in time while others get answers, fast says that it is busy; Azure counts.
func TestBusyIsNotHung(t *testing.T) {
	own := []resource.Probe{{Type: resource.Liveness, TCP: &resource.TCPSocket{Port: 8080}, Period: 10 * time.Second, FailureThreshold: 3}}
	tests := map[string]struct {
		behaviour resource.Behaviour
		answers   string // b: busy, x: refused, space: well
		kill      bool
	}{
		"busy for ever":                    {resource.Fast, "bbbbbbbbbbbb", false},
		"hung after it was busy":           {resource.Fast, "bbbxxx", true},
		"busy ends a row of failures":      {resource.Fast, "xxbxxbxx", false},
		"azure counts every time-out":      {resource.Azure, "bbb", true},
		"and takes it for one of a row":    {resource.Azure, "xxb", true},
		"an answer ends a row with either": {resource.Azure, "bb bb bb ", false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			answer := func(_ resource.ProbeType, at time.Duration) error {
				i := int(at / own[0].Period)
				if i >= len(test.answers) {
					return nil
				}
				return map[byte]error{'b': probe.ErrBusy, 'x': errRefused}[test.answers[i]]
			}
			steps := simulate(probe.Checks(own, 0, test.behaviour), test.behaviour, 3*time.Minute, answer)
			if at, killed := first(steps, kill); killed != test.kill {
				t.Errorf("%q: killed %t at %s, want %t", test.answers, killed, at, test.kill)
			}
		})
	}
	t.Run("a busy startup or readiness probe has failed", func(t *testing.T) {
		for _, kind := range []resource.ProbeType{resource.Startup, resource.Readiness} {
			own := []resource.Probe{{Type: kind, TCP: &resource.TCPSocket{Port: 8080}, Period: time.Second, FailureThreshold: 2}}
			steps := simulate(probe.Checks(own, 0, resource.Fast), resource.Fast, 30*time.Second, func(resource.ProbeType, time.Duration) error { return probe.ErrBusy })
			if _, counted := first(steps, func(s step) bool { return s.Counted }); !counted || steps[0].Busy != 0 {
				t.Errorf("%s: no failure counts", kind)
			}
		}
	})
}

// A port that answers for long without a success is worth one hint, in both behaviours. A closed port is not.
func TestAPortThatAnswersWithoutSuccess(t *testing.T) {
	get := resource.Probe{Type: resource.Readiness, HTTP: &resource.HTTPGet{Path: "/healthz", Port: 8080}, FailureThreshold: 1000}
	opens := 20 * time.Second
	tests := map[string]struct {
		answer func(at time.Duration) error
		hint   string // "" means none
	}{
		"a path that does not exist": {func(at time.Duration) error { return probe.StatusError(404) },
			"Port 8080 has answered for 30s and no readiness probe has succeeded: GET /healthz on port 8080 answered 404. It may never succeed; check the probe's path"},
		"a program that loads":  {func(at time.Duration) error { return probe.StatusError(503) }, "answered 503. If the program is still loading, this is as it should be"},
		"a port that is closed": {func(at time.Duration) error { return errRefused }, ""},
		"one that has loaded in time": {func(at time.Duration) error {
			if at > opens+25*time.Second {
				return nil
			}
			return probe.StatusError(503)
		}, ""},
		"one that fails after a success": {func(at time.Duration) error {
			if at < time.Second {
				return nil
			}
			return probe.StatusError(503)
		}, ""},
	}
	for name, test := range tests {
		for _, b := range []resource.Behaviour{resource.Fast, resource.Azure} {
			t.Run(name+", "+string(b), func(t *testing.T) {
				var hints []step
				for _, s := range simulate(probe.Checks([]resource.Probe{get}, 0, b), b, 5*time.Minute, func(_ resource.ProbeType, at time.Duration) error {
					if err := test.answer(at); err == nil || at >= opens {
						return err
					}
					return errRefused
				}) {
					if s.Open > 0 {
						hints = append(hints, s)
					}
				}
				switch {
				case test.hint == "" && len(hints) > 0:
					t.Errorf("got %q, want none", hints[0].Hint())
				case test.hint != "" && (len(hints) != 1 || !strings.Contains(hints[0].Hint(), test.hint) || hints[0].at < opens+30*time.Second || hints[0].at > opens+41*time.Second):
					t.Errorf("got %v, want %q once", hints, test.hint)
				}
			})
		}
	}
}
