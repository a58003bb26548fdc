package admin

import (
	"context"
	"fmt"
	"time"

	"penstock/internal/resource"
	"penstock/internal/runtimes"
)

// cpuSampler computes the current vCPU usage from the CPU time that replicas have used. It reads only on demand.
type cpuSampler struct {
	runtime Runtime
	// turn holds a token while nobody reads. A second concurrent read would return the same.
	turn       chan struct{}
	base, last reading
}

// reading is the CPU time that the replicas have used up to a time.
type reading struct {
	at       time.Time
	replicas []resource.Replica
	usage    map[string]runtimes.Usage
}

const (
	// minSpan is the minimum time between two readings for a rate. The kernel accounts in ticks of up to 10 ms.
	minSpan = 500 * time.Millisecond
	// maxAge is the age from which a reading says nothing about the current usage.
	maxAge = 10 * time.Second
)

func newCPUSampler(runtime Runtime) *cpuSampler {
	s := &cpuSampler{runtime: runtime, turn: make(chan struct{}, 1)}
	s.turn <- struct{}{}
	return s
}

// sample returns a new reading, and the vCPUs that each replica has used since an earlier one. It takes minSpan if
// there is no earlier one.
func (s *cpuSampler) sample(ctx context.Context) (reading, map[string]float64, error) {
	select {
	case <-s.turn:
	case <-ctx.Done():
		return reading{}, nil, context.Cause(ctx)
	}
	defer func() { s.turn <- struct{}{} }()
	if time.Since(s.last.at) >= minSpan {
		s.base = s.last
	}
	if time.Since(s.base.at) > maxAge {
		var err error
		if s.base, err = s.read(ctx); err != nil {
			return reading{}, nil, err
		}
		pause := time.NewTimer(minSpan)
		defer pause.Stop()
		select {
		case <-pause.C:
		case <-ctx.Done():
			return reading{}, nil, context.Cause(ctx)
		}
	}
	now, err := s.read(ctx)
	if err != nil {
		return reading{}, nil, err
	}
	s.last = now
	cpu := map[string]float64{}
	for name, u := range now.usage {
		if before, ok := s.base.usage[name]; ok && u.CPUNanos >= before.CPUNanos {
			cpu[name] = float64(u.CPUNanos-before.CPUNanos) / float64(now.at.Sub(s.base.at))
		}
	}
	return now, cpu, nil
}

func (s *cpuSampler) read(ctx context.Context) (reading, error) {
	replicas, err := s.runtime.Replicas(ctx)
	if err != nil {
		return reading{}, fmt.Errorf("usage: %w", err)
	}
	r := reading{at: time.Now(), replicas: replicas, usage: make(map[string]runtimes.Usage, len(replicas))}
	for _, replica := range replicas {
		// A replica that has just ended, or has no container yet, uses nothing.
		if u, err := s.runtime.Usage(ctx, replica.Name); err == nil {
			r.usage[replica.Name] = u
		}
	}
	return r, nil
}
