package load

import (
	"iter"
	"math"
	"math/rand/v2"
	"time"
)

// Arrival is one request of a schedule.
type Arrival struct {
	At              time.Duration // since the start
	ContextTokens   int           // from a trace
	GeneratedTokens int
}

// Constant returns endless arrivals at an even rate.
func Constant(perSecond float64) iter.Seq[Arrival] {
	return func(yield func(Arrival) bool) {
		for n := 0.0; ; n++ {
			// Multiply instead of adding up, so that errors do not accumulate over a long run.
			if !yield(Arrival{At: seconds(n / perSecond)}) {
				return
			}
		}
	}
}

// Poisson returns endless arrivals at a mean rate, as from independent users. The same seed gives the same arrivals.
func Poisson(perSecond float64, seed uint64) iter.Seq[Arrival] {
	return func(yield func(Arrival) bool) {
		random := rand.New(rand.NewPCG(seed, 0))
		for at := random.ExpFloat64() / perSecond; ; at += random.ExpFloat64() / perSecond {
			if !yield(Arrival{At: seconds(at)}) {
				return
			}
		}
	}
}

// Step is a rate and how long it lasts.
type Step struct {
	PerSecond float64
	For       time.Duration
}

// Stepped returns arrivals at the rate of each step in turn, and ends with the last step. A fraction of a request that is
// left at the end of a step is carried into the next.
func Stepped(steps []Step) iter.Seq[Arrival] {
	// Rates and times given by people are decimal fractions, which floats cannot represent exactly.
	const close = 1e-6
	return func(yield func(Arrival) bool) {
		var began time.Duration
		var due, next float64 // requests due when the step began; number of the next one
		for _, s := range steps {
			end := due + s.PerSecond*s.For.Seconds()
			for ; next < end-close; next++ {
				if !yield(Arrival{At: began + seconds(max(0, next-due)/s.PerSecond)}) {
					return
				}
			}
			due, began = end, began+s.For
		}
	}
}

// Total returns the total duration of the steps.
func Total(steps []Step) time.Duration {
	var sum time.Duration
	for _, s := range steps {
		sum += s.For
	}
	return sum
}

// Replay returns the arrivals of a trace, speed times faster.
func Replay(trace []Arrival, speed float64) iter.Seq[Arrival] {
	return func(yield func(Arrival) bool) {
		for _, a := range trace {
			a.At = seconds(a.At.Seconds() / speed)
			if !yield(a) {
				return
			}
		}
	}
}

// seconds converts seconds to a duration, limited to the longest one.
func seconds(s float64) time.Duration {
	if s >= math.MaxInt64/1e9 {
		return math.MaxInt64
	}
	return time.Duration(math.Round(s * 1e9))
}
