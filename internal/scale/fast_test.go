package scale_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"penstock/internal/resource"
	"penstock/internal/scale"
)

// plant is a revision under load in virtual time. Its replicas take a while to start, have a number of slots, and have
// a queue in front.
type plant struct {
	decider *scale.Decider
	start   time.Duration
	service time.Duration
	places  int
	rate    func(at time.Duration) float64 // arrivals a second
	chance  *rand.Rand                     // nil means evenly spaced arrivals

	at       time.Duration
	due      float64
	waiting  int
	ends     []time.Duration // of requests on replicas, earliest first
	starting []time.Duration // when the starting replicas are ready
	ready    int
	moves    int // changes of the count
	most     int // replicas
	served   int
}

const tick = 20 * time.Millisecond

// until runs the plant, and calls see after each decision.
func (p *plant) until(end time.Duration, see func(scale.Decision)) {
	var idleSince time.Duration = -1
	for ; p.at < end; p.at += tick {
		var l scale.Load
		var starts []time.Duration
		l.Busy = time.Duration(len(p.ends)) * tick
		for len(p.ends) > 0 && p.ends[0] <= p.at {
			p.ends = p.ends[1:]
			l.Completed++
			l.Served += p.service
			p.served++
		}
		for len(p.starting) > 0 && p.starting[0] <= p.at {
			p.starting = p.starting[1:]
			p.ready++
			starts = append(starts, p.start)
		}
		if mean := p.rate(p.at) * tick.Seconds(); p.chance != nil {
			l.Arrived = poisson(p.chance, mean)
		} else {
			p.due += mean
			l.Arrived = int(p.due)
			p.due -= float64(l.Arrived)
		}
		p.waiting += l.Arrived
		for p.waiting > 0 && len(p.ends) < p.ready*p.places {
			p.waiting--
			p.ends = append(p.ends, p.at+p.service)
		}
		l.InFlight, l.Waiting = len(p.ends), p.waiting
		quiet := l == scale.Load{} && len(starts) == 0
		if quiet && idleSince >= 0 && p.at-idleSince < time.Second {
			continue
		}
		idleSince = -1
		if quiet {
			idleSince = p.at
		}
		current := p.ready + len(p.starting)
		d := p.decider.Decide(scale.Sample{At: t0.Add(p.at), Current: current, Load: l, Starts: starts})
		if see != nil {
			see(d)
		}
		if d.Wanted != current {
			p.moves++
		}
		for ; current < d.Wanted; current++ {
			p.starting = append(p.starting, p.at+p.start)
		}
		if gone := current - d.Wanted; gone > 0 {
			cancelled := min(gone, len(p.starting))
			p.starting = p.starting[:len(p.starting)-cancelled]
			p.ready -= gone - cancelled
		}
		p.most = max(p.most, p.ready+len(p.starting))
	}
}

func poisson(r *rand.Rand, mean float64) (n int) {
	for limit, product := math.Exp(-mean), r.Float64(); product > limit; product *= r.Float64() {
		n++
	}
	return n
}

// learned returns a decider that knows how long requests and starts take.
func learned(p scale.Policy, service, start time.Duration) *scale.Decider {
	return scale.New(p, scale.State{Learned: scale.Learned{Service: service, Start: start}})
}

// After a step in load, at most one replica too many is ordered, or a fifth too many. Random arrivals may order one
// more, and may be seen a little later.
func TestFastStepDoesNotOvershoot(t *testing.T) {
	const target, base = 10, 8.0
	for _, start := range []time.Duration{100 * time.Millisecond, 5 * time.Second, 30 * time.Second} {
		for factor, services := range map[float64][]time.Duration{
			2: {6 * time.Second}, 5: {time.Second}, 20: {200 * time.Millisecond, 6 * time.Second},
		} {
			for _, service := range services {
				for name, chance := range map[string]*rand.Rand{"even": nil, "by chance": rand.New(rand.NewPCG(2, 1))} {
					step := time.Minute + start
					p := &plant{
						decider: learned(fast(http(target, scale.InFlight), 0, 1000), service, start), chance: chance,
						start: start, service: service, places: target,
						rate: func(at time.Duration) float64 {
							if at < step {
								return base
							}
							return base * factor
						},
					}
					p.until(step, nil)
					p.most = 0
					needed := math.Ceil(base * factor * service.Seconds() / target)
					enough := time.Duration(-1)
					p.until(step+start+30*time.Second, func(d scale.Decision) {
						if enough < 0 && float64(d.Wanted) >= needed {
							enough = p.at - step
						}
					})
					most, late := max(needed+1, 1.2*needed), 15*time.Second
					if chance != nil {
						most, late = max(needed+2, 1.25*needed), 20*time.Second
					}
					if float64(p.most) > most {
						t.Errorf("start %v, %vx, service %v, %s: %d replicas, needed %v", start, factor, service, name, p.most, needed)
					}
					if enough < 0 || enough > late {
						t.Errorf("start %v, %vx, service %v, %s: enough were ordered after %v, want at most %v", start, factor, service, name, enough, late)
					}
				}
			}
		}
	}
}

// TestFastBurstFromZero sends 1,000 requests in a second to an app at zero. Enough replicas are ordered within a tenth
// of a second.
func TestFastBurstFromZero(t *testing.T) {
	p := &plant{
		decider: learned(fast(http(10, scale.InFlight), 0, 20), time.Second, 200*time.Millisecond),
		start:   200 * time.Millisecond, service: time.Second, places: 10,
		rate: func(at time.Duration) float64 {
			if at >= 10*time.Second && at < 11*time.Second {
				return 1000
			}
			return 0
		},
	}
	enough := time.Duration(-1)
	p.until(time.Minute, func(d scale.Decision) {
		if enough < 0 && d.Wanted == 20 {
			enough = p.at - 10*time.Second
		}
	})
	if enough < 0 || enough > 100*time.Millisecond {
		t.Errorf("20 replicas were ordered after %v, want at most 100ms", enough)
	}
	if p.served != 1000 {
		t.Errorf("%d served, want 1000", p.served)
	}
}

// Requests that come all at once order what they need, not what they would need if they continued.
func TestFastBatch(t *testing.T) {
	p := &plant{
		decider: learned(fast(http(10, scale.InFlight), 0, 100), 5*time.Second, 5*time.Second),
		start:   5 * time.Second, service: 5 * time.Second, places: 10,
		rate: func(at time.Duration) float64 {
			if at == 20*time.Second {
				return 100 / tick.Seconds()
			}
			return 0
		},
	}
	p.until(2*time.Minute, nil)
	if p.most != 10 || p.served != 100 {
		t.Errorf("at most %d replicas, %d served; want 10 and 100", p.most, p.served)
	}
}

// A load that changes within the scale-in window, a little or around a target, does not make the count oscillate.
func TestFastDoesNotFlap(t *testing.T) {
	wave := func(at, period time.Duration) float64 { return math.Sin(2 * math.Pi * float64(at) / float64(period)) }
	for name, rate := range map[string]func(at time.Duration) float64{
		"square wave of 40 s": func(at time.Duration) float64 {
			if at%(40*time.Second) < 20*time.Second {
				return 50
			}
			return 5
		},
		"sine of 50 s":                  func(at time.Duration) float64 { return 30 + 25*wave(at, 50*time.Second) },
		"noise around a target":         func(time.Duration) float64 { return 10 },
		"noise around three targets":    func(time.Duration) float64 { return 30 },
		"noise around a hundred places": func(time.Duration) float64 { return 100 },
	} {
		p := &plant{
			decider: learned(fast(http(10, scale.InFlight), 0, 100), time.Second, time.Second), chance: rand.New(rand.NewPCG(7, 7)),
			start: time.Second, service: time.Second, places: 10, rate: rate,
		}
		p.until(2*time.Minute, nil)
		p.moves = 0
		p.until(7*time.Minute, nil)
		if p.moves > 8 {
			t.Errorf("%s: the count changed %d times in 5 minutes, want at most 8", name, p.moves)
		}
	}
}

// If all clients leave but one, which sends one request after the other, many replicas become one within the window and two seconds.
func TestFastScalesInUnderOneClient(t *testing.T) {
	for _, c := range []struct {
		service time.Duration
		target  float64
	}{{50 * time.Millisecond, 1}, {50 * time.Millisecond, 10}, {200 * time.Millisecond, 2}, {time.Second, 4}, {5 * time.Second, 10}} {
		clients := int(10 * c.target)
		d := learned(fast(http(c.target, scale.InFlight), 0, 10), c.service, time.Second)
		const left = 20 * time.Second
		current := 10
		var one time.Duration
		for at := time.Duration(0); at < 3*time.Minute && one == 0; at += 50 * time.Millisecond {
			n := clients
			if at >= left {
				n = 1
			}
			l := scale.Load{Busy: time.Duration(n) * 50 * time.Millisecond, InFlight: n}
			for client := range n {
				// They send their requests evenly over the time that one takes.
				if phase := time.Duration(client) * c.service / time.Duration(n); at%c.service == (phase - phase%(50*time.Millisecond)) {
					l.Arrived, l.Completed, l.Served = l.Arrived+1, l.Completed+1, l.Served+c.service
				}
			}
			got := d.Decide(scale.Sample{At: t0.Add(at), Current: current, Load: l})
			if current = got.Wanted; at < left && current < 10 {
				t.Fatalf("target %v, service %v: %d replicas for %d clients after %v", c.target, c.service, current, clients, at)
			}
			if at >= left && current == 1 {
				one = at - left
			}
		}
		// They were needed until the last of them had their answers.
		if one < resource.FastScaleInWindow || one > resource.FastScaleInWindow+2*time.Second {
			t.Errorf("target %v, service %v: one replica after %v, want between %v and 2 s later", c.target, c.service, one, resource.FastScaleInWindow)
		}
	}
}

// One request a minute keeps an app awake whose cool-down period is five minutes, even if no decision is made while it
// is served.
func TestTrickleKeepsAwake(t *testing.T) {
	for name, p := range map[string]scale.Policy{
		"fast": fast(http(10, scale.InFlight), 0, 1), "azure": azure(http(10, scale.Documented), 0, 1),
		"external, fast": fast(queue(), 0, 1), "external, azure": azure(queue(), 0, 1),
	} {
		w := &world{Decider: scale.New(p, scale.State{})}
		for at := time.Duration(0); at < 30*time.Minute; at += time.Second {
			var l scale.Load
			reading := scale.Reading{Target: 1}
			if at%time.Minute == 0 {
				if p.Rules[0].Kind == scale.HTTP {
					l = scale.Load{Arrived: 1, Completed: 1, Served: 50 * time.Millisecond, Busy: 50 * time.Millisecond}
				} else {
					reading = scale.Reading{Target: 1, Active: true}
				}
			}
			w.at(at, l, map[string]scale.Reading{"queue": reading})
		}
		t.Run(name, func(t *testing.T) { w.want(t, "0s 1") })
	}
}

// The cool-down period applies only from 1 to 0, the window only from N to 1.
func TestFastCooldownAndWindow(t *testing.T) {
	for name, c := range map[string]struct {
		cooldown, window time.Duration
		want             string
	}{
		"cool-down longer":  {300 * time.Second, 60 * time.Second, "1m0s 1, 5m0s 0"},
		"cool-down shorter": {5 * time.Second, 60 * time.Second, "1m0s 1, 1m1s 0"},
		"cool-down 0":       {0, 60 * time.Second, "1m0s 1, 1m1s 0"},
		"both short":        {3 * time.Second, 3 * time.Second, "3s 1, 4s 0"},
	} {
		p := fast(http(10, scale.InFlight), 0, 10)
		p.Cooldown, p.ScaleIn = c.cooldown, c.window
		w := &world{Decider: scale.New(p, scale.State{}), current: 5}
		w.each(0, 10*time.Minute, time.Second, scale.Load{}, nil)
		t.Run(name, func(t *testing.T) { w.want(t, c.want) })
	}
}

// A saved state continues where it was.
func TestStateGoesOn(t *testing.T) {
	p := fast(http(10, scale.InFlight), 0, 10)
	w := &world{Decider: scale.New(p, scale.State{}), current: 5}
	w.each(0, 30*time.Second, time.Second, scale.Load{}, nil)
	w.Decider = scale.New(p, w.State())
	w.each(31*time.Second, 2*time.Minute, time.Second, scale.Load{}, nil)
	w.want(t, "1m0s 1")
	// After a gap the count is held for one window.
	w.Resume(t0.Add(time.Hour), 5)
	w.current, w.log = 5, nil
	w.each(time.Hour, time.Hour+2*time.Minute, time.Second, scale.Load{}, nil)
	w.want(t, "1h1m0s 1")
}

// FuzzDecide checks that the count is within minReplicas and maxReplicas whatever the input is.
func FuzzDecide(f *testing.F) {
	f.Add([]byte{0, 10, 3, 200, 1, 0, 9, 9, 250, 1}, false)
	f.Add([]byte{2, 3, 250, 250, 250, 250, 0, 0, 0, 0}, true)
	f.Fuzz(func(t *testing.T, b []byte, asAzure bool) {
		if len(b) < 2 {
			return
		}
		least, most := int(b[0]%5), int(b[1]%20)+1
		most = max(least, most)
		rules := slices.Concat(http(10, scale.InFlight), queue(), []scale.Rule{{Name: "cpu", Kind: scale.CPU, Target: 50}})
		p := fast(rules, least, most)
		if asAzure {
			p = azure(rules, least, most)
		}
		d := scale.New(p, scale.State{})
		at, current := t0, 0
		for _, x := range b[2:] {
			at = at.Add(time.Duration(x) * 100 * time.Millisecond)
			n := int(x)
			got := d.Decide(scale.Sample{
				At: at, Current: current,
				Load:     scale.Load{Arrived: n % 7, Completed: n % 5, Served: time.Duration(n) * time.Millisecond, Busy: time.Duration(n) * time.Millisecond, InFlight: n % 11, Waiting: n % 13},
				Readings: map[string]scale.Reading{"queue": {Value: float64(n) - 5, Target: 3, Active: n > 100}, "cpu": {Value: float64(n), Replicas: current}},
			})
			if got.Wanted < least || got.Wanted > most {
				t.Fatalf("%d wanted, want %d to %d: %+v", got.Wanted, least, most, got)
			}
			if !got.Next.After(at) {
				t.Fatalf("next look at %v, not after %v", got.Next, at)
			}
			current = got.Wanted
		}
	})
}

// News that is late, because the machine was busy, is no burst.
func TestFastLateNewsIsNoBurst(t *testing.T) {
	d := learned(fast(http(10, scale.InFlight), 0, 100), time.Second, time.Second)
	current, most := 1, 0
	for i := range 600 { // 40 a second, 40 in flight, and each fifth second it is heard of all at once
		at := time.Duration(i) * 100 * time.Millisecond
		heard := at
		if i%50 < 10 && i >= 50 {
			heard = time.Duration(i-i%50+10) * 100 * time.Millisecond
		}
		got := d.Decide(scale.Sample{At: t0.Add(heard), Current: current, Load: scale.Load{
			Arrived: 4, Completed: 4, Served: 4 * time.Second, Busy: 4 * time.Second, InFlight: 40, Waiting: 5000, Measured: t0.Add(at),
		}})
		current = got.Wanted
		most = max(most, current)
	}
	if most > 6 {
		t.Errorf("%d replicas for a load that needs 4, want at most 6 with those that wait", most)
	}
}

// A load that has ended is over: the count goes down a scale-in window after it, and not later.
func TestFastLoadThatEnds(t *testing.T) {
	p := &plant{
		decider: learned(fast(http(10, scale.InFlight), 1, 100), time.Second, time.Second),
		start:   time.Second, service: time.Second, places: 10,
		rate: func(at time.Duration) float64 {
			if at < time.Minute {
				return 100
			}
			return 0
		},
	}
	var down time.Duration
	p.until(5*time.Minute, func(d scale.Decision) {
		if down == 0 && p.at > time.Minute && d.Wanted <= 2 {
			down = p.at - time.Minute
		}
	})
	if down < resource.FastScaleInWindow || down > resource.FastScaleInWindow+5*time.Second {
		t.Errorf("two replicas or fewer %v after the load ended, want within 5 s of the window of %v", down, resource.FastScaleInWindow)
	}
}
