package leak_test

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"penstock/internal/leak"
)

const (
	mib   = 1 << 20
	limit = 1024 // MiB
)

var start = time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)

// curve is the memory of a process in MiB at a time after it became ready.
type curve func(at time.Duration) float64

// Parts of curves.
func flat(mib float64) curve { return func(time.Duration) float64 { return mib } }

func leaks(perHour float64) curve {
	return func(at time.Duration) float64 { return perHour * at.Hours() }
}

// warms grows by so much and levels off.
func warms(by float64, within time.Duration) curve {
	return func(at time.Duration) float64 { return by * (1 - math.Exp(-3*at.Seconds()/within.Seconds())) }
}

// loads grows by so much at a constant speed and then stops.
func loads(by float64, within time.Duration) curve {
	return func(at time.Duration) float64 { return by * min(1, at.Seconds()/within.Seconds()) }
}

// collects grows until a garbage collector runs, again and again.
func collects(by float64, every time.Duration) curve {
	return func(at time.Duration) float64 { return by * float64(at%every) / float64(every) }
}

// steps grows by so much at once, again and again.
func steps(by float64, every time.Duration) curve {
	return func(at time.Duration) float64 { return by * float64(at/every) }
}

// days follows the load of a day.
func days(by float64) curve {
	return func(at time.Duration) float64 { return by / 2 * (1 - math.Cos(2*math.Pi*at.Hours()/24)) }
}

// from begins later.
func from(begin time.Duration, c curve) curve {
	return func(at time.Duration) float64 {
		if at < begin {
			return 0
		}
		return c(at - begin)
	}
}

func noise(by float64, seed uint64) curve {
	r := rand.New(rand.NewPCG(seed, 1))
	return func(time.Duration) float64 { return by * r.Float64() }
}

func sum(list ...curve) curve {
	return func(at time.Duration) (n float64) {
		for _, c := range list {
			n += c(at)
		}
		return n
	}
}

// observe follows a process as the platform does, until over, until stop says so, or until it reaches its limit.
func observe(c curve, over time.Duration, stop func(*leak.Trace, time.Duration) bool) (t *leak.Trace, at time.Duration, full bool) {
	t = &leak.Trace{}
	for at < over {
		used := c(at)
		if used >= limit {
			return t, at, true
		}
		t.Add(start, start.Add(at), int64(used*mib), limit*mib)
		if stop != nil && stop(t, at) {
			return t, at, false
		}
		at += t.Next(max(15*time.Second, over/1500))
	}
	return t, at, false
}

func TestWhatIsNoLeak(t *testing.T) {
	tests := map[string]struct {
		c    curve
		over time.Duration
	}{
		"flat":                                              {flat(300), 48 * time.Hour},
		"noise":                                             {sum(flat(300), noise(100, 1)), 72 * time.Hour},
		"little noise":                                      {sum(flat(300), noise(4, 2)), 72 * time.Hour},
		"a quick warm-up":                                   {sum(flat(100), warms(500, 30*time.Second)), 24 * time.Hour},
		"a warm-up of an hour":                              {sum(flat(100), warms(400, time.Hour)), 24 * time.Hour},
		"a warm-up of a day":                                {sum(flat(100), warms(400, 24*time.Hour)), 72 * time.Hour},
		"weights loaded at a constant speed":                {sum(flat(20), loads(800, time.Minute)), 24 * time.Hour},
		"weights loaded with the first request":             {sum(flat(20), from(3*time.Hour, loads(800, 20*time.Second))), 24 * time.Hour},
		"a collector that runs every 20 s":                  {sum(flat(200), collects(300, 20*time.Second)), 6 * time.Hour},
		"a collector that runs every 3 min":                 {sum(flat(200), collects(300, 3*time.Minute)), 6 * time.Hour},
		"a collector that runs every 20 min":                {sum(flat(200), collects(300, 20*time.Minute)), 24 * time.Hour},
		"a collector that runs every 3 h":                   {sum(flat(200), collects(300, 3*time.Hour)), 72 * time.Hour},
		"a collector after a warm-up, with noise":           {sum(flat(100), warms(200, 5*time.Minute), collects(250, 7*time.Minute), noise(30, 3)), 72 * time.Hour},
		"the load of the day":                               {sum(flat(200), days(250), noise(50, 4)), 10 * 24 * time.Hour},
		"a batch that allocates once":                       {sum(flat(200), from(5*time.Hour, flat(300))), 48 * time.Hour},
		"so little that it would take half a year":          {sum(flat(200), leaks(0.2), noise(5, 5)), 10 * 24 * time.Hour},
		"a collector that uses nearly half of what is free": {sum(flat(300), collects(330, 47*time.Minute), noise(10, 6)), 72 * time.Hour},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			trace, at, full := observe(test.c, test.over, func(trace *leak.Trace, _ time.Duration) bool { return trace.Trend().Certain })
			if trend := trace.Trend(); trend.Certain || full {
				t.Errorf("after %v: got %+v, want no leak", at, trend)
			}
		})
	}
}

func TestLeaks(t *testing.T) {
	tests := map[string]struct {
		c      curve
		rate   float64 // MiB an hour
		within time.Duration
	}{
		"50 MB a minute":                       {sum(flat(100), leaks(3000)), 3000, 12 * time.Minute},
		"100 MiB an hour":                      {sum(flat(200), leaks(100)), 100, 5*time.Hour + 30*time.Minute},
		"10 MiB an hour":                       {sum(flat(200), leaks(10)), 10, 36 * time.Hour},
		"with noise":                           {sum(flat(200), leaks(100), noise(40, 1)), 100, 6 * time.Hour},
		"with a collector":                     {sum(flat(200), leaks(60), collects(150, 2*time.Minute)), 60, 8 * time.Hour},
		"with a slow collector":                {sum(flat(200), leaks(30), collects(200, 10*time.Minute)), 30, 16 * time.Hour},
		"in steps":                             {sum(flat(200), steps(10, 10*time.Minute)), 60, 10 * time.Hour},
		"after a warm-up":                      {sum(flat(50), warms(300, 10*time.Minute), leaks(60)), 60, 9 * time.Hour},
		"that begins after a day":              {sum(flat(200), from(24*time.Hour, leaks(60)), noise(10, 2)), 60, 36 * time.Hour},
		"that becomes faster":                  {sum(flat(100), leaks(20), from(10*time.Hour, leaks(1000))), 1020, 10*time.Hour + 44*time.Minute},
		"after a peak that was freed long ago": {sum(flat(200), from(time.Hour, loads(500, time.Minute)), from(2*time.Hour, loads(-500, time.Minute)), from(30*time.Hour, leaks(60))), 60, 42 * time.Hour},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			trace, at, full := observe(test.c, test.within, func(trace *leak.Trace, _ time.Duration) bool {
				trend := trace.Trend()
				return trend.Certain && float64(trend.PerHour)/mib > test.rate*0.7
			})
			trend := trace.Trend()
			if !trend.Certain {
				t.Fatalf("after %v (full: %v): got %+v, want a leak", at, full, trend)
			}
			if rate := float64(trend.PerHour) / mib; rate < test.rate*0.7 || rate > test.rate*1.4 {
				t.Errorf("after %v: got %.1f MiB an hour, want about %.1f", at, rate, test.rate)
			}
			// When it really reaches its limit.
			end := at
			for test.c(end) < limit {
				end += 15 * time.Second
			}
			if left := end - at; trend.Left < left/2 || trend.Left > left*2 {
				t.Errorf("after %v: got %v to the limit, want about %v", at, trend.Left, left)
			}
		})
	}
}

func TestWorn(t *testing.T) {
	policy := leak.Policy{Share: 80, Lead: 40 * time.Second}
	tests := map[string]struct {
		c       curve
		p       leak.Policy
		want    leak.Worn
		within  time.Duration
		atLeast float64 // MiB that are used when it is replaced
		atMost  float64
	}{
		"a leak of 50 MB a minute":                     {sum(flat(100), leaks(3000)), policy, leak.OverShare, time.Hour, 819, 840},
		"a leak of 10 MiB an hour":                     {sum(flat(200), leaks(10)), policy, leak.OverShare, 100 * time.Hour, 819, 821},
		"a leak that fills the memory within 20 s":     {sum(flat(100), leaks(50*3600)), policy, leak.Warming, time.Minute, 819, 950},
		"and the next replica, which may use more":     {sum(flat(100), leaks(50*3600)), leak.Policy{Share: 80, Lead: 40 * time.Second, Again: true}, leak.Warming, time.Minute, 921, 1000},
		"a leak in an app that takes long to start":    {sum(flat(100), leaks(3000)), leak.Policy{Share: 95, Lead: 10 * time.Minute}, leak.LimitNear, time.Hour, 512, 700},
		"a leak that is known, while it may warm up":   {sum(flat(100), leaks(12000)), leak.Policy{Share: 95, Lead: 10 * time.Minute, Known: true}, leak.LimitNear, time.Hour, 512, 700},
		"flat above the share":                         {flat(900), policy, leak.Fits, 48 * time.Hour, 0, 0},
		"warmed up to above the share":                 {sum(flat(100), warms(770, 4*time.Minute)), policy, leak.Fits, 48 * time.Hour, 0, 0},
		"a quick warm-up to above the share":           {sum(flat(100), loads(770, 20*time.Second)), policy, leak.Warming, time.Minute, 819, 870},
		"but not that of the next replica":             {sum(flat(100), loads(770, 20*time.Second)), leak.Policy{Share: 80, Lead: 40 * time.Second, Again: true}, leak.Fits, 48 * time.Hour, 0, 0},
		"warming up below the share":                   {sum(flat(100), loads(600, 10*time.Second)), policy, leak.Fits, 48 * time.Hour, 0, 0},
		"a collector below the share":                  {sum(flat(200), collects(500, time.Minute), noise(20, 1)), policy, leak.Fits, 48 * time.Hour, 0, 0},
		"a batch that leaves more than the share used": {sum(flat(200), from(5*time.Hour, flat(650))), policy, leak.OverShare, 6 * time.Hour, 849, 851},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			trace, at, full := observe(test.c, test.within, func(trace *leak.Trace, _ time.Duration) bool { return trace.Worn(test.p) != leak.Fits })
			got := trace.Worn(test.p)
			if got != test.want {
				t.Fatalf("after %v (full: %v): got %q with %+v, want %q", at, full, got, trace.Trend(), test.want)
			}
			if used := float64(trace.Trend().Used) / mib; got != leak.Fits && (used < test.atLeast || used > test.atMost) {
				t.Errorf("after %v: replaced at %.0f MiB, want %.0f to %.0f", at, used, test.atLeast, test.atMost)
			}
		})
	}
}

// A share that a new replica exceeds as well is known once it has settled.
func TestAShareBelowWhatIsNeeded(t *testing.T) {
	trace, _, _ := observe(sum(flat(100), warms(770, time.Minute)), 10*time.Minute, nil)
	if !trace.Above(80) || trace.Above(90) {
		t.Errorf("got %v of 80 %% and %v of 90 %% for a replica that needs 85 %%", trace.Above(80), trace.Above(90))
	}
}

// A process that ran before anybody observed it, as after a restart of the platform, is replaced when it uses more than the share:
// nobody knows how much of that has leaked.
func TestAProcessThatIsFoundRunning(t *testing.T) {
	for used, want := range map[int64]leak.Worn{700: leak.Fits, 900: leak.OverShare} {
		var trace leak.Trace
		trace.Add(start.Add(-time.Hour), start, used*mib, limit*mib)
		if got := trace.Worn(leak.Policy{Share: 80, Lead: time.Minute}); got != want || trace.Above(80) {
			t.Errorf("with %d MiB of %d: got %q, want %q", used, limit, got, want)
		}
	}
}

// Samples are taken often while there is much to see, and rarely otherwise.
func TestWhenToLookNext(t *testing.T) {
	count := func(c curve, over time.Duration) (n int) {
		observe(c, over, func(*leak.Trace, time.Duration) bool { n++; return false })
		return n
	}
	if n := count(sum(flat(300), noise(1, 1)), time.Hour); n > 300 {
		t.Errorf("%d samples in an hour at rest, want about 240", n)
	}
	if n := count(sum(flat(100), leaks(60*3600)), time.Minute); n < 12 {
		t.Errorf("%d samples of a process that is full within 15 s, want at least 12", n)
	}
}

func FuzzTrace(f *testing.F) {
	f.Add([]byte("1234567890abcdefghijklmnopqrstuvwxyz"), int64(1<<20))
	f.Add([]byte{0, 255, 0, 255, 255, 0, 9}, int64(-1))
	f.Fuzz(func(t *testing.T, data []byte, limit int64) {
		var trace leak.Trace
		at := start
		if len(data) > 500 {
			return
		}
		for i, b := range data {
			at = at.Add(time.Duration(b) * time.Second * time.Duration(i))
			trace.Add(start, at, int64(b)*limit/200, limit)
			r := trace.Trend()
			if r.PerHour < 0 || r.Left < 0 || r.Over < 0 || r.Certain && r.PerHour == 0 {
				t.Fatalf("got %+v", r)
			}
			if next := trace.Next(15 * time.Second); next <= 0 || next > 15*time.Second {
				t.Fatalf("the next look is in %v", next)
			}
			trace.Worn(leak.Policy{Share: 80, Lead: time.Minute})
		}
	})
}
