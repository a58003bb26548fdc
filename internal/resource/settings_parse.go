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
	// CodeNotBuilt is the code of every refusal of something that Azure has and Penstock has not yet.
	CodeNotBuilt = "FeatureNotSupported"

	// azureIdleTimeout is how long Azure's ingress leaves a silent request open
	// (learn.microsoft.com/azure/container-apps/ingress-overview).
	azureIdleTimeout = 240 * time.Second

	// longestWait bounds every duration that a tag can set: every wait has an end.
	longestWait = 24 * time.Hour
)

// setting is one tag: how its value changes the settings.
type setting struct {
	name string
	set  func(s *Settings, value string) error
}

var settings = []setting{
	// Behaviour comes first: it decides what the others default to.
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
	{"prefetch", choice(func(s *Settings) *Prefetch { return &s.Prefetch }, PrefetchOff, PrefetchWeights)},
}

// laterTags are settings that other parts of Penstock will read. A value is taken only when it asks for what is done.
var laterTags = map[string]string{
	"http-metric":     "",
	"scale-in-window": "",
	"standby":         "none",
	"recycle":         "off",
}

// ParseSettings adds up the penstock tags of an environment and, above them, of an app in it. The error is an
// *InvalidError that names every bad tag.
func ParseSettings(environment, app map[string]string) (Settings, error) {
	values := map[string]string{}
	var faults []Fault
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
	}
	if strings.EqualFold(values["behaviour"], string(Azure)) {
		s.IdleTimeout = azureIdleTimeout
	}
	for _, setting := range settings {
		if value, ok := values[setting.name]; ok {
			_ = setting.set(&s, value) // checkTag took it
		}
	}
	return s, nil
}

func checkTag(name, tag, value string) *Fault {
	field := "tags." + tag
	if honoured, later := laterTags[name]; later {
		if honoured != "" && strings.EqualFold(value, honoured) {
			return nil
		}
		message := fmt.Sprintf("%q is not built in this version of Penstock; leave the tag out", value)
		if honoured != "" {
			message += " or set it to " + honoured
		}
		return &Fault{CodeNotBuilt, field, message}
	}
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

// duration takes Go's durations; the word that none is spelled with, if it may be none, sets 0.
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
