package autoscale

import (
	"context"
	"fmt"
	"slices"
	"time"

	"penstock/internal/resource"
	"penstock/internal/scale"
)

// measureEvery is how often replicas of revisions with a cpu or memory rule are measured. Kubernetes' metrics server
// uses the same interval.
const measureEvery = 15 * time.Second

// gauge converts the CPU time that replicas have used into their current CPU usage.
type gauge map[string]cpuTime

type cpuTime struct {
	at    time.Time
	nanos uint64
}

// measure reads what replicas use, for cpu and memory rules.
func (s *Scaler) measure(ctx context.Context) {
	tick := time.NewTicker(measureEvery)
	defer tick.Stop()
	for {
		for _, r := range s.measured() {
			readings, gauge := s.read(ctx, r)
			s.mu.Lock()
			if kept := s.revisions[r.id.Key()]; kept != nil {
				kept.readings, kept.gauge = readings, gauge
				s.due(kept, time.Now())
			}
			s.mu.Unlock()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// subject is a revision to measure.
type subject struct {
	id       resource.ID
	rules    []scale.Rule
	limits   resource.Resources
	replicas []string
	gauge    gauge
}

func (s *Scaler) measured() (list []subject) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.revisions {
		if !slices.ContainsFunc(r.policy.Rules, func(rule scale.Rule) bool { return rule.Kind == scale.CPU || rule.Kind == scale.Memory }) {
			continue
		}
		one := subject{id: r.id, rules: r.policy.Rules, gauge: r.gauge}
		for _, c := range r.rev.Template.Containers {
			one.limits.MilliCPU += c.Resources.MilliCPU
			one.limits.Memory += c.Resources.Memory
		}
		for name, ready := range r.seen {
			if ready {
				one.replicas = append(one.replicas, name)
			}
		}
		list = append(list, one)
	}
	return list
}

// read measures the replicas of a revision. The value of a rule is the mean over the ready replicas, in percent of
// their limit, or in vCPUs or MiB.
func (s *Scaler) read(ctx context.Context, one subject) (map[string]scale.Reading, gauge) {
	var cpu, memory []float64
	next := gauge{}
	var failed error
	for _, name := range one.replicas {
		u, err := s.cfg.Usage(ctx, name)
		if err != nil {
			failed = err // the replica may be leaving; the others are enough
			continue
		}
		now := cpuTime{time.Now(), u.CPUNanos}
		next[name] = now
		if before, ok := one.gauge[name]; ok && now.at.After(before.at) && now.nanos >= before.nanos {
			cores := float64(now.nanos-before.nanos) / float64(now.at.Sub(before.at))
			cpu = append(cpu, cores)
		}
		memory = append(memory, float64(u.WorkingSet))
	}
	readings := map[string]scale.Reading{}
	for _, rule := range one.rules {
		var values []float64
		var unit float64 // what a value of 1 is, in vCPUs or bytes
		switch {
		case rule.Kind == scale.CPU && rule.Amount:
			values, unit = cpu, 1
		case rule.Kind == scale.CPU:
			values, unit = cpu, float64(one.limits.MilliCPU)/1000/100
		case rule.Kind == scale.Memory && rule.Amount:
			values, unit = memory, mebibyte
		case rule.Kind == scale.Memory:
			values, unit = memory, float64(one.limits.Memory)/100
		default:
			continue
		}
		readings[rule.Name] = mean(values, unit, len(one.replicas), failed)
	}
	return readings, next
}

// mean returns the mean of values, counted in a unit.
func mean(values []float64, unit float64, replicas int, failed error) scale.Reading {
	if len(values) == 0 {
		switch {
		case failed != nil:
			return scale.Reading{Err: fmt.Sprintf("cannot be measured: %v", failed)}
		case replicas == 0:
			return scale.Reading{Err: "no replica is ready"}
		}
		return scale.Reading{Err: "not measured for long enough yet"}
	}
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return scale.Reading{Value: sum / float64(len(values)) / unit, Replicas: len(values)}
}
