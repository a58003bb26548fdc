package resource

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	codeTag = "PenstockInvalidTag"
	// CodeNotBuilt is the error code for everything that Azure supports and Penstock does not support yet.
	CodeNotBuilt = "FeatureNotSupported"

	// AzureScaleInWindow is for how long a smaller count must have been enough before Azure removes replicas
	// (learn.microsoft.com/azure/container-apps/scale-app, "scale down stabilization window").
	AzureScaleInWindow = 300 * time.Second
	// FastScaleInWindow is that of the fast behaviour. It is shorter than Azure's because its counts flap less.
	FastScaleInWindow = 60 * time.Second

	// azureIdleTimeout is how long Azure's ingress keeps a request open without any data
	// (learn.microsoft.com/azure/container-apps/ingress-overview).
	azureIdleTimeout = 240 * time.Second

	// longestWait is the longest duration that a tag can set, so that every wait ends.
	longestWait = 24 * time.Hour

	// A new replica uses more than leastRecycle, and above mostRecycle too little is left until it has started.
	leastRecycle = 10
	mostRecycle  = 95
)

// setting is one tag, with the function that applies its value to the settings.
type setting struct {
	name string
	set  func(s *Settings, value string) error
}

var settings = []setting{
	// Behaviour comes first, because the defaults of the others depend on it.
	{"behaviour", choice(func(s *Settings) *Behaviour { return &s.Behaviour }, Fast, Azure)},
	{"max-concurrency", count(func(s *Settings) *int { return &s.MaxConcurrency }, 0, 100_000)},
	{"queue-limit", count(func(s *Settings) *int { return &s.QueueLimit }, 0, 1_000_000)},
	{"queue-timeout", duration(func(s *Settings) *time.Duration { return &s.QueueTimeout }, "")},
	{"request-timeout", duration(func(s *Settings) *time.Duration { return &s.RequestTimeout }, "none")},
	{"idle-timeout", duration(func(s *Settings) *time.Duration { return &s.IdleTimeout }, "")},
	{"rollout", choice(func(s *Settings) *Rollout { return &s.Rollout }, Surge, Replace)},
	{"retry", choice(func(s *Settings) *Retry { return &s.Retry }, RetryIdempotent, RetryAll, RetryNone)},
	{"drain-limit", duration(func(s *Settings) *time.Duration { return &s.DrainLimit }, "")},
	{"capabilities", choice(func(s *Settings) *Capabilities { return &s.Capabilities }, CapabilitiesDefault, CapabilitiesNone)},
	{"http-metric", choice(func(s *Settings) *HTTPMetric { return &s.HTTPMetric }, MetricInFlight, MetricDocumented, MetricConnections)},
	{"scale-in-window", duration(func(s *Settings) *time.Duration { return &s.ScaleInWindow }, "")},
	{"progress", toggle(func(s *Settings) *bool { return &s.Progress })},
	{"prefetch", choice(func(s *Settings) *Prefetch { return &s.Prefetch }, PrefetchOff, PrefetchWeights)},
	{hostPortSetting, func(_ *Settings, value string) error { _, err := parseHostPort(value); return err }},
	{"recycle", recycle},
	{"standby", choice(func(s *Settings) *Standby { return &s.Standby }, StandbyCreated, StandbyPaused, StandbyNone)},
}

// ParseSettings returns the settings of an app, from the penstock tags of its environment and its own, which override
// them. The error is an *InvalidError that names every invalid tag.
func ParseSettings(environment, app map[string]string) (Settings, error) {
	values := map[string]string{}
	var faults []Fault
	for tag := range environment {
		if strings.EqualFold(tag, TagPrefix+hostPortSetting) {
			faults = append(faults, Fault{codeTag, "tags." + tag, "want it on one app, as a port leads to one app; got it on an environment"})
		}
	}
	for _, tags := range []map[string]string{environment, app} {
		for _, tag := range slices.Sorted(maps.Keys(tags)) {
			name := strings.ToLower(tag)
			if !strings.HasPrefix(name, TagPrefix) {
				continue
			}
			if fault := checkTag(strings.TrimPrefix(name, TagPrefix), tag, tags[tag]); fault != nil {
				faults = append(faults, *fault)
				continue
			}
			values[strings.TrimPrefix(name, TagPrefix)] = tags[tag]
		}
	}
	if len(faults) > 0 {
		return Settings{}, &InvalidError{faults}
	}
	s := Settings{
		Behaviour:    Fast,
		QueueLimit:   1000,
		QueueTimeout: 240 * time.Second,
		IdleTimeout:  10 * time.Minute,
		Rollout:      Surge,
		Retry:        RetryIdempotent,
		DrainLimit:   30 * time.Minute,
		Capabilities: CapabilitiesDefault,
		Prefetch:     PrefetchOff,
		Standby:      StandbyCreated,
		HTTPMetric:   MetricInFlight, ScaleInWindow: FastScaleInWindow,
	}
	azure := strings.EqualFold(values["behaviour"], string(Azure))
	if azure {
		s.IdleTimeout, s.HTTPMetric, s.ScaleInWindow = azureIdleTimeout, MetricDocumented, AzureScaleInWindow
	}
	for _, setting := range settings {
		if value, ok := values[setting.name]; ok {
			_ = setting.set(&s, value) // checkTag has accepted it
		}
	}
	if azure {
		// Azure starts from nothing. What an environment asks for is for its other apps.
		for tag, value := range app {
			if strings.EqualFold(tag, TagPrefix+"standby") && !strings.EqualFold(value, string(StandbyNone)) {
				return Settings{}, &InvalidError{[]Fault{{codeTag, "tags." + tag, fmt.Sprintf("want none under the behaviour azure, got %q", value)}}}
			}
		}
		s.Standby = StandbyNone
	}
	return s, nil
}

func checkTag(name, tag, value string) *Fault {
	field := "tags." + tag
	at := slices.IndexFunc(settings, func(s setting) bool { return s.name == name })
	if at < 0 {
		names := make([]string, 0, len(settings))
		for _, s := range settings {
			names = append(names, TagPrefix+s.name)
		}
		return &Fault{codeTag, field, "unknown setting; want one of " + strings.Join(names, ", ")}
	}
	if err := settings[at].set(&Settings{}, value); err != nil {
		return &Fault{codeTag, field, err.Error()}
	}
	return nil
}

func choice[T ~string](at func(*Settings) *T, values ...T) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		i := slices.IndexFunc(values, func(v T) bool { return strings.EqualFold(string(v), value) })
		if i < 0 {
			names := make([]string, len(values))
			for i, v := range values {
				names[i] = string(v)
			}
			return fmt.Errorf("want %s, got %q", strings.Join(names, " or "), value)
		}
		*at(s) = values[i]
		return nil
	}
}

func toggle(at func(*Settings) *bool) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		on := strings.EqualFold(value, "on")
		if !on && !strings.EqualFold(value, "off") {
			return fmt.Errorf("want on or off, got %q", value)
		}
		*at(s) = on
		return nil
	}
}

func count(at func(*Settings) *int, least, most int) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		n, err := strconv.Atoi(value)
		if err != nil || n < least || n > most {
			return fmt.Errorf("want %d to %d, got %q", least, most, value)
		}
		*at(s) = n
		return nil
	}
}

// recycle parses the share of its memory limit from which on a replica is replaced, in percent.
func recycle(s *Settings, value string) error {
	if strings.EqualFold(value, "off") {
		s.Recycle = 0
		return nil
	}
	n, err := strconv.Atoi(strings.TrimSuffix(value, "%"))
	if err != nil || n < leastRecycle || n > mostRecycle {
		return fmt.Errorf("want off, or %d to %d percent of the memory limit as in 80, got %q", leastRecycle, mostRecycle, value)
	}
	s.Recycle = n
	return nil
}

// duration parses a duration in Go's notation. If none is not empty, the value none is accepted too and means 0.
func duration(at func(*Settings) *time.Duration, none string) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		if none != "" && strings.EqualFold(value, none) {
			*at(s) = 0
			return nil
		}
		d, err := time.ParseDuration(value)
		if err != nil || d <= 0 || d > longestWait {
			return fmt.Errorf("want a duration above 0 and up to 24h as in 90s or 10m%s, got %q", wordOr(none), value)
		}
		*at(s) = d
		return nil
	}
}

func wordOr(word string) string {
	if word == "" {
		return ""
	}
	return " or " + word
}
