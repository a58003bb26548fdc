package autoscale

import (
	"math"
	"time"

	"penstock/internal/resource"
	"penstock/internal/scale"
)

// job is what is kept for a job that events start.
type job struct {
	job       resource.Job
	behaviour resource.Behaviour
	sources   map[string]*sourceState
}

// source returns the spec of the source of a rule. ok is false if the rule is not evaluated here.
func (j *job) source(r resource.ScaleRule) (spec sourceSpec, ok bool) {
	if r.Custom == nil {
		return spec, false
	}
	spec = newSourceSpec(j.job.ID, j.job.Environment, j.job.ID.Base(), j.job.Template, r)
	converted := rule(r, resource.Settings{})
	switch converted.Kind {
	case scale.External:
	case scale.Cron:
		spec.window, spec.desired = converted.Window, converted.Target
	default:
		return spec, false
	}
	if spec.pollEvery = j.job.Configuration.Scale.Polling; spec.pollEvery <= 0 {
		spec.pollEvery = resource.DefaultPolling
	}
	if j.behaviour != resource.Azure {
		spec.pollEvery = min(spec.pollEvery, fastPolling)
	}
	spec.readEvery, spec.readPushed = spec.pollEvery, true
	return spec, true
}

// Demand returns how many executions the sources of a job want, from values that were not returned before. at is when
// the first of these was asked for. ok is false if there is none. Reconcile calls it at each pass. It does not block.
func (s *Scaler) Demand(wanted resource.Job, settings resource.Settings) (executions int, at time.Time, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := wanted.ID.Key()
	j := s.jobs[key]
	if j == nil || j.job.Generation != wanted.Generation || j.behaviour != settings.Behaviour {
		// What the sources of an earlier version said is forgotten, because it may be about other rules.
		s.jobs[key] = &job{job: wanted, behaviour: settings.Behaviour, sources: map[string]*sourceState{}}
		s.sourcesChanged()
		return 0, time.Time{}, false
	}
	for _, state := range j.sources {
		if !state.unused {
			continue
		}
		state.unused = false
		if !ok || state.began.Before(at) {
			at = state.began
		}
		ok = true
		if r := state.reading; r.Active && r.Value >= 0 && r.Target > 0 {
			executions = max(executions, int(math.Min(math.Ceil(r.Value/r.Target-1e-9), math.MaxInt32)))
		}
	}
	return executions, at, ok
}

// sourcesChanged makes the sources follow the revisions and jobs. It is called with mu held.
func (s *Scaler) sourcesChanged() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}
