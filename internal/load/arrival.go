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
	ContextTokens   int           // of a trace
	GeneratedTokens int
}

// Constant arrives at an even rate without end.
func Constant(perSecond float64) iter.Seq[Arrival] {
	return func(yield func(Arrival) bool) {
		for n := 0.0; ; n++ {
			// Multiplied, not added up: no error gathers over a long run.
			if !yield(Arrival{At: seconds(n / perSecond)}) {
				return
			}
		}
	}
}

// Poisson arrives as independent users do, at a mean rate, without end. A seed gives the same arrivals each time.
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

// Step is a rate that holds for a time.
type Step struct {
	PerSecond float64
	For       time.Duration
}

// Stepped arrives at the rate of each step in turn and ends with the last. A part of a request that is left when a step
// ends is carried into the next.
func Stepped(steps []Step) iter.Seq[Arrival] {
	// Rates and times of people are decimal fractions, which floats miss by a little.
	const close = 1e-6
	return func(yield func(Arrival) bool) {
		var began time.Duration
		var due, next float64 // requests due when the step began; the next one's number
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

// Total is how long the steps last together.
func Total(steps []Step) time.Duration {
	var sum time.Duration
	for _, s := range steps {
		sum += s.For
	}
	return sum
}

// Replay arrives as a trace did, speed times faster.
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

// seconds is a duration, the longest there is when it would be longer.
func seconds(s float64) time.Duration {
	if s >= math.MaxInt64/1e9 {
		return math.MaxInt64
	}
	return time.Duration(math.Round(s * 1e9))
}
