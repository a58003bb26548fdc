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
		executions = max(executions, units(state.reading))
	}
	return executions, at, ok
}

// units returns how many executions a reading asks for.
func units(r scale.Reading) int {
	if r.Err != "" || !r.Active || !(r.Value >= 0) || !(r.Target > 0) {
		return 0
	}
	return int(math.Min(math.Ceil(r.Value/r.Target-1e-9), math.MaxInt32))
}

// ExplainJob returns what each rule of a job that events start has told last, and how many executions it asks for.
func (s *Scaler) ExplainJob(id resource.ID) (wishes []scale.Wish) {
	s.mu.Lock()
	defer s.mu.Unlock()
	j := s.jobs[id.Key()]
	if j == nil {
		return nil
	}
	for _, r := range j.job.Configuration.Scale.Rules {
		converted := rule(r, resource.Settings{})
		w := scale.Wish{Rule: r.Name, Kind: converted.Kind}
		if w.Hours = converted.Hours; converted.Window != nil {
			w.Changes = converted.Window.Change(time.Now())
		}
		state := j.sources[r.Name]
		switch _, evaluated := j.source(r); {
		case !evaluated:
			w.Kind, w.Note = scale.Other, "not evaluated here: "+converted.Type
		case state == nil:
			w.Failed, w.Note = true, "no value yet"
		default:
			w.Active, w.Value, w.Target, w.Wanted = state.reading.Active, state.reading.Value, state.reading.Target, units(state.reading)
			if w.Note = state.reading.Note; state.reading.Err != "" {
				w.Failed, w.Note = true, state.reading.Err
			}
		}
		wishes = append(wishes, w)
	}
	return wishes
}

// sourcesChanged makes the sources follow the revisions and jobs. It is called with mu held.
func (s *Scaler) sourcesChanged() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}
