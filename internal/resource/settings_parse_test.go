package resource_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"penstock/internal/resource"
)

// fastDefaults are the documented defaults of the fast behaviour.
func fastDefaults() resource.Settings {
	return resource.Settings{
		Behaviour: resource.Fast, QueueLimit: 1000, QueueTimeout: 240 * time.Second, IdleTimeout: 10 * time.Minute,
		Rollout: resource.Surge, Retry: resource.RetryIdempotent, DrainLimit: 30 * time.Minute, Capabilities: resource.CapabilitiesDefault,
		Prefetch: resource.PrefetchOff, Standby: resource.StandbyCreated, HTTPMetric: resource.MetricInFlight, ScaleInWindow: 60 * time.Second,
	}
}

func TestParseSettings(t *testing.T) {
	type tags = map[string]string
	with := func(change func(*resource.Settings)) resource.Settings {
		s := fastDefaults()
		change(&s)
		return s
	}
	tests := map[string]struct {
		environment, app tags
		want             resource.Settings
	}{
		"no tags":                 {nil, nil, fastDefaults()},
		"other tags are not ours": {nil, tags{"team": "ml", "penstocks": "2"}, fastDefaults()},
		"behaviour azure changes what it has other numbers for": {tags{"penstock.behaviour": "azure"}, nil, with(func(s *resource.Settings) {
			s.HTTPMetric, s.ScaleInWindow = resource.MetricDocumented, 300*time.Second
			s.Behaviour, s.IdleTimeout, s.Standby = resource.Azure, 240*time.Second, resource.StandbyNone
		})},
		"a tag of its own wins over the behaviour's default": {nil, tags{"penstock.behaviour": "azure", "penstock.idle-timeout": "5m"}, with(func(s *resource.Settings) {
			s.HTTPMetric, s.ScaleInWindow = resource.MetricDocumented, 300*time.Second
			s.Behaviour, s.IdleTimeout, s.Standby = resource.Azure, 5*time.Minute, resource.StandbyNone
		})},
		"an environment's standby is not for its apps under azure": {tags{"penstock.standby": "paused"}, tags{"penstock.behaviour": "azure"}, with(func(s *resource.Settings) {
			s.HTTPMetric, s.ScaleInWindow = resource.MetricDocumented, 300*time.Second
			s.Behaviour, s.IdleTimeout, s.Standby = resource.Azure, 240*time.Second, resource.StandbyNone
		})},
		"the app's tags win over the environment's": {tags{"penstock.behaviour": "azure", "penstock.queue-limit": "5"}, tags{"penstock.behaviour": "fast"}, with(func(s *resource.Settings) {
			s.QueueLimit = 5
		})},
		"every setting": {nil, tags{
			"penstock.max-concurrency": "4", "penstock.queue-limit": "0", "penstock.queue-timeout": "3s", "penstock.request-timeout": "1h",
			"penstock.rollout": "replace", "penstock.retry": "all", "penstock.drain-limit": "1m", "penstock.capabilities": "none",
			"penstock.prefetch": "weights", "penstock.standby": "Paused", "penstock.http-metric": "documented", "penstock.scale-in-window": "5s", "penstock.recycle": "80",
		}, with(func(s *resource.Settings) {
			s.MaxConcurrency, s.QueueLimit, s.QueueTimeout, s.RequestTimeout = 4, 0, 3*time.Second, time.Hour
			s.Rollout, s.Retry, s.DrainLimit, s.Capabilities = resource.Replace, resource.RetryAll, time.Minute, resource.CapabilitiesNone
			s.HTTPMetric, s.ScaleInWindow = resource.MetricDocumented, 5*time.Second
			s.Prefetch, s.Standby = resource.PrefetchWeights, resource.StandbyPaused
			s.Recycle = 80
		})},
		"names in any case, none for no timeout":  {nil, tags{"Penstock.Request-Timeout": "None"}, fastDefaults()},
		"a percentage with its sign":              {nil, tags{"penstock.recycle": "95%"}, with(func(s *resource.Settings) { s.Recycle = 95 })},
		"off in an app of an environment with it": {tags{"penstock.recycle": "70"}, tags{"penstock.recycle": "Off"}, fastDefaults()},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := resource.ParseSettings(test.environment, test.app)
			if err != nil || got != test.want {
				t.Errorf("got %+v, %v\nwant %+v", got, err, test.want)
			}
		})
	}
}

func TestParseSettingsRefuses(t *testing.T) {
	tests := map[string]struct{ tag, value, code, says string }{
		"an unknown setting":           {"penstock.max-concurency", "4", "PenstockInvalidTag", "penstock.max-concurrency"},
		"a number below zero":          {"penstock.queue-limit", "-1", "PenstockInvalidTag", `want 0 to 1000000, got "-1"`},
		"a number with a unit":         {"penstock.max-concurrency", "4k", "PenstockInvalidTag", `want 0 to 100000, got "4k"`},
		"a duration without a unit":    {"penstock.queue-timeout", "240", "PenstockInvalidTag", "want a duration"},
		"no wait at all":               {"penstock.idle-timeout", "0s", "PenstockInvalidTag", "want a duration"},
		"none where there must be one": {"penstock.queue-timeout", "none", "PenstockInvalidTag", "want a duration"},
		"a wait without an end":        {"penstock.drain-limit", "9000h", "PenstockInvalidTag", "up to 24h"},
		"an unknown word":              {"penstock.behaviour", "quick", "PenstockInvalidTag", `want fast or azure, got "quick"`},
		"a switch that is neither":     {"penstock.progress", "yes", "PenstockInvalidTag", `want on or off, got "yes"`},
		"a share that is not one":      {"penstock.recycle", "on", "PenstockInvalidTag", `want off, or 10 to 95 percent of the memory limit as in 80, got "on"`},
		"a share above the limit":      {"penstock.recycle", "120", "PenstockInvalidTag", "10 to 95"},
		"a share of nothing":           {"penstock.recycle", "0", "PenstockInvalidTag", "10 to 95"},
		"a broken share":               {"penstock.recycle", "79.5", "PenstockInvalidTag", "10 to 95"},
		"another standby":              {"penstock.standby", "warm", "PenstockInvalidTag", `want created or paused or none, got "warm"`},
		"an unknown metric":            {"penstock.http-metric", "streams", "PenstockInvalidTag", "inflight or documented or connections"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := resource.ParseSettings(nil, map[string]string{test.tag: test.value})
			invalid, ok := errors.AsType[*resource.InvalidError](err)
			if !ok || len(invalid.Faults) != 1 {
				t.Fatalf("got %v, want one fault", err)
			}
			f := invalid.Faults[0]
			if f.Code != test.code || f.Field != "tags."+test.tag || !strings.Contains(f.Message, test.says) {
				t.Errorf("got %+v, want %s that says %q", f, test.code, test.says)
			}
		})
	}
	_, err := resource.ParseSettings(map[string]string{"penstock.retry": "often"}, map[string]string{"penstock.rollout": "later", "penstock.x": "1"})
	if invalid, ok := errors.AsType[*resource.InvalidError](err); !ok || len(invalid.Faults) != 3 {
		t.Errorf("got %v, want all three faults", err)
	}
}

// An environment's word on silent requests is below every tag.
func TestSettingsOfAnEnvironment(t *testing.T) {
	tag := func(value string) map[string]string { return map[string]string{"Penstock.Idle-Timeout": value} }
	for name, test := range map[string]struct {
		environment, app map[string]string
		ingress, want    time.Duration
	}{
		"nobody says so":      {nil, nil, 0, 10 * time.Minute},
		"the environment":     {nil, nil, 30 * time.Minute, 30 * time.Minute},
		"a tag of it":         {tag("20m"), nil, 30 * time.Minute, 20 * time.Minute},
		"a tag of the app":    {tag("20m"), tag("1m"), 30 * time.Minute, time.Minute},
		"Azure's behaviour":   {map[string]string{"penstock.behaviour": "azure"}, nil, 30 * time.Minute, 30 * time.Minute},
		"and no word of time": {map[string]string{"penstock.behaviour": "azure"}, nil, 0, 4 * time.Minute},
	} {
		env := resource.Environment{Meta: resource.Meta{Tags: test.environment}, Ingress: resource.EnvironmentIngress{IdleTimeout: test.ingress}}
		if s, err := env.Settings(test.app); err != nil || s.IdleTimeout != test.want {
			t.Errorf("%s: got %v, %v, want %v", name, s.IdleTimeout, err, test.want)
		}
	}
	env := resource.Environment{Ingress: resource.EnvironmentIngress{IdleTimeout: time.Minute}}
	if _, err := env.Settings(map[string]string{"penstock.retry": "never"}); err == nil || !strings.Contains(err.Error(), "tags.penstock.retry") {
		t.Errorf("a bad tag: got %v", err)
	}
}

func TestNoStandbyUnderAzure(t *testing.T) {
	_, err := resource.ParseSettings(nil, map[string]string{"penstock.behaviour": "azure", "Penstock.Standby": "created"})
	invalid, ok := errors.AsType[*resource.InvalidError](err)
	if !ok || len(invalid.Faults) != 1 || invalid.Faults[0].Field != "tags.Penstock.Standby" {
		t.Errorf("got %v, want the tag refused", err)
	}
	if _, err := resource.ParseSettings(nil, map[string]string{"penstock.behaviour": "azure", "penstock.standby": "none"}); err != nil {
		t.Error(err)
	}
}
