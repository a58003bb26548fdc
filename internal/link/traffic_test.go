package link_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"math"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"penstock/internal/link"
)

func TestQuantilesAreNearTheTruth(t *testing.T) {
	for name, scale := range map[string]time.Duration{"microseconds": time.Microsecond, "a request": 50 * time.Microsecond, "minutes": 10 * time.Second} {
		var l link.Latency
		for i := range 1000 {
			l.Add(time.Duration(i+1) * scale)
		}
		for _, q := range []float64{0.5, 0.95, 1} {
			want := time.Duration(q*1000) * scale
			if got := l.Quantile(q); math.Abs(float64(got-want)) > 0.125*float64(want)+float64(time.Microsecond) {
				t.Errorf("%s: quantile %v of 1 to 1000 is %v, want %v", name, q, got, want)
			}
		}
	}
	var none link.Latency
	if got := none.Quantile(0.5); got != 0 {
		t.Errorf("quantile of nothing: %v, want 0", got)
	}
	var extreme link.Latency
	extreme.Add(-time.Second)
	extreme.Add(math.MaxInt64)
	if got := extreme.Quantile(0.1); got > time.Microsecond {
		t.Errorf("a duration below 0 counts as %v, want 0", got)
	}
	if got := extreme.Quantile(1); got < 18*time.Hour {
		t.Errorf("300 years count as %v, want the last bucket", got)
	}
}

// pipes is a listener of connections in memory.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (p pipes) Close() error   { close(p); return nil }
func (p pipes) Addr() net.Addr { return nil }

// Rates are of the last ten seconds, over all ingresses, however long they have counted.
func TestRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ln := make(pipes)
		log := slog.New(slog.DiscardHandler)
		hub := link.NewHub("a", log)
		var wg sync.WaitGroup
		wg.Go(func() { hub.Serve(ctx, ln) })
		var mu sync.Mutex
		perSecond, slow := 20, 10*time.Millisecond
		for range 2 { // two ingresses
			total := link.Tally{Requests: 1 << 40, Errors: 7}
			var refused uint64
			c := link.Client{
				Dial: func(context.Context) (net.Conn, error) {
					near, far := net.Pipe()
					ln <- far
					return near, nil
				},
				Apply: func(link.Table) {}, Report: func() link.Report { return link.Report{InFlight: map[string]int{"r": 1}} },
				Traffic: func() *link.Traffic {
					mu.Lock()
					defer mu.Unlock()
					for range perSecond {
						total.Requests++
						total.Latency.Add(slow)
					}
					total.Errors++
					refused += 3
					return &link.Traffic{Replicas: map[string]link.Tally{"r": total}, Refused: map[string]uint64{"/rev": refused}}
				},
				Log: log,
			}
			wg.Go(func() { c.Run(ctx) })
		}
		check := func(when string, requests float64, latency time.Duration) {
			t.Helper()
			time.Sleep(20*time.Second + 500*time.Millisecond)
			synctest.Wait()
			r := hub.Rates().Replicas["r"]
			p50 := r.Latency.Quantile(0.5)
			if math.Abs(r.Requests-requests) > 0.1 || math.Abs(r.Errors-2) > 0.01 || math.Abs(float64(p50-latency)) > 0.125*float64(latency) {
				t.Errorf("%s: %.2f requests and %.2f errors a second, p50 %v; want %.2f, 2, %v", when, r.Requests, r.Errors, p50, requests, latency)
			}
			if got := hub.Rates().Refused["/rev"]; math.Abs(got-6) > 0.01 {
				t.Errorf("%s: refused %.2f a second, want 6", when, got)
			}
		}
		check("at first", 40, 10*time.Millisecond)
		mu.Lock()
		perSecond, slow = 5, time.Second
		mu.Unlock()
		check("after the load fell", 10, time.Second)
		cancel()
		wg.Wait()
		if got := hub.Rates(); len(got.Replicas) != 0 {
			t.Errorf("after all ingresses left: %v", got)
		}
	})
}

// A replica has answered since a time when any ingress has heard of it then, or up to two seconds before: that old its
// report may be.
func TestAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ln := make(pipes)
		log := slog.New(slog.DiscardHandler)
		hub := link.NewHub("a", log)
		var wg sync.WaitGroup
		wg.Go(func() { hub.Serve(ctx, ln) })
		began := time.Now()
		for _, heard := range []map[string]time.Duration{{"both": 5 * time.Second, "one": 0}, {"both": 20 * time.Second}} {
			c := link.Client{
				Dial: func(context.Context) (net.Conn, error) {
					near, far := net.Pipe()
					ln <- far
					return near, nil
				},
				Apply: func(link.Table) {}, Report: func() link.Report { return link.Report{} },
				Traffic: func() *link.Traffic {
					t := &link.Traffic{Heard: map[string]time.Duration{}}
					for name, at := range heard { // at which second a byte came last
						if ago := time.Since(began) - at; ago >= 0 && ago < link.HeardFor {
							t.Heard[name] = ago
						}
					}
					return t
				},
				Log: log,
			}
			wg.Go(func() { c.Run(ctx) })
		}
		time.Sleep(21*time.Second + 500*time.Millisecond)
		synctest.Wait()
		for since, want := range map[time.Duration]map[string]bool{
			0:                {"both": true, "one": true, "none": false},
			19 * time.Second: {"both": true, "one": false},
			21 * time.Second: {"both": true},
			23 * time.Second: {"both": false},
		} {
			for replica, want := range want {
				if got := hub.Answered(replica, began.Add(since)); got != want {
					t.Errorf("%s, since second %s: got %t, want %t", replica, since, got, want)
				}
			}
		}
		cancel()
		wg.Wait()
		if hub.Answered("both", began) {
			t.Error("an ingress that has left is still believed")
		}
	})
}

// What an ingress has measured is told apart from what it has not, also after its way over the wire.
func TestIntegralsOverTheWire(t *testing.T) {
	report := func(text string) (r link.Traffic) {
		t.Helper()
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	send := func(at, sum time.Duration) link.Integral {
		text, err := json.Marshal(link.Traffic{Replicas: map[string]link.Tally{"r": {InFlight: link.Integral{At: at, Sum: sum}}}})
		if err != nil {
			t.Fatal(err)
		}
		return report(string(text)).Replicas["r"].InFlight
	}
	old := report(`{"replicas": {"r": {"requests": 9, "latency": []}}}`).Replicas["r"].InFlight
	tests := map[string]struct {
		before, after link.Integral
		average       float64
		ok            bool
	}{
		"six seconds within three":         {send(time.Second, time.Second), send(4*time.Second, 7*time.Second), 2, true},
		"a nanosecond in an hour":          {send(time.Hour, 1), send(2*time.Hour, 2), 1 / 3.6e12, true},
		"nothing was in flight":            {send(time.Second, time.Second), send(2*time.Second, time.Second), 0, true},
		"it does not measure":              {old, old, 0, false},
		"one moment":                       {send(time.Second, 1), send(time.Second, 1), 0, false},
		"counting has started again":       {send(time.Second, time.Second), send(2*time.Second, 0), 0, false},
		"another ingress, that is younger": {send(time.Minute, 0), send(time.Second, 0), 0, false},
	}
	for name, test := range tests {
		if got, ok := test.after.Average(test.before); got != test.average || ok != test.ok {
			t.Errorf("%s: got %v, %t, want %v, %t", name, got, ok, test.average, test.ok)
		}
	}
}

func FuzzLatency(f *testing.F) {
	for _, seed := range []string{`[]`, `[0,1,271,4294967295]`, `[272,1]`, `[1]`, `[-1,2]`, `null`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var l, again link.Latency
		if json.Unmarshal(b, &l) != nil {
			return
		}
		out, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(out, &again); err != nil || again != l {
			t.Errorf("%s is read as %v (%v)", out, again, err)
		}
	})
}
