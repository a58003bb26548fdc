package main

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"penstock/examples/chat/internal/bytesize"
)

// config holds the settings from environment variables. README.md lists them with their units.
type config struct {
	Port            int
	ModelPath       string
	MaxTokens       int
	Temperature     float64
	LoadTime        time.Duration
	ResidentBytes   int64  // how much of the weights is read at load, or allOfIt
	WhileLoading    string // state of the port while loading: answer503 or closed
	Slots           int
	QueueLimit      int
	FirstToken      time.Duration
	TokensPerSecond float64 // per slot; 0 for no limit
	LeakBytes       int64   // per request
	Faults          string  // on or off
	DrainTime       time.Duration
	LogLevel        slog.Level
}

const (
	answer503, closed = "503", "closed" // PORT_WHILE_LOADING
	off, on           = "off", "on"     // FAULTS

	allOfIt = -1 // RESIDENT_BYTES=all

	maxLeak = 1 << 40 // more than any machine this runs on has
)

// LogValue returns the settings with the names of their variables.
func (c config) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("MODEL_PATH", c.ModelPath), slog.Int("MAX_TOKENS", c.MaxTokens), slog.Float64("TEMPERATURE", c.Temperature),
		slog.Float64("LOAD_SECONDS", c.LoadTime.Seconds()), slog.Int64("RESIDENT_BYTES", c.ResidentBytes), slog.String("PORT_WHILE_LOADING", c.WhileLoading),
		slog.Int("SLOTS", c.Slots), slog.Int("QUEUE_LIMIT", c.QueueLimit), slog.String("TIME_TO_FIRST_TOKEN", c.FirstToken.String()),
		slog.Float64("TOKENS_PER_SECOND", c.TokensPerSecond), slog.Int64("LEAK_BYTES_PER_REQUEST", c.LeakBytes), slog.String("FAULTS", c.Faults),
		slog.Float64("DRAIN_SECONDS", c.DrainTime.Seconds()),
	)
}

// readConfig reads the settings and reports every fault, not only the first.
// An empty variable counts as not set.
func readConfig(getenv func(string) string) (config, error) {
	var faults []error
	get := func(name, fallback string, parse func(string) error) {
		value := strings.TrimSpace(getenv(name))
		if value == "" {
			value = fallback
		}
		if err := parse(value); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", name, err))
		}
	}

	var cfg config
	get("PORT", "8080", wholeNumber(&cfg.Port, 0, 65535))
	get("MODEL_PATH", "/models/model.safetensors", func(v string) error {
		cfg.ModelPath = v // loading shows whether it is a model
		return nil
	})
	get("MAX_TOKENS", "512", wholeNumber(&cfg.MaxTokens, 1, 1_000_000))
	get("TEMPERATURE", "0.7", number(&cfg.Temperature, 0, 2))
	get("LOAD_SECONDS", "0", seconds(&cfg.LoadTime, 0, time.Hour))
	get("RESIDENT_BYTES", "all", func(v string) error {
		if v == "all" {
			cfg.ResidentBytes = allOfIt
			return nil
		}
		return size(&cfg.ResidentBytes)(v)
	})
	get("PORT_WHILE_LOADING", "503", choice(&cfg.WhileLoading, answer503, closed))
	get("SLOTS", "1", wholeNumber(&cfg.Slots, 1, 1024))
	get("QUEUE_LIMIT", "100", wholeNumber(&cfg.QueueLimit, 0, 100_000))
	get("TIME_TO_FIRST_TOKEN", "200ms", duration(&cfg.FirstToken, 10*time.Minute))
	get("TOKENS_PER_SECOND", "20", number(&cfg.TokensPerSecond, 0, 1_000_000))
	get("LEAK_BYTES_PER_REQUEST", "0", func(v string) error {
		if err := size(&cfg.LeakBytes)(v); err != nil {
			return err
		}
		if cfg.LeakBytes > maxLeak {
			return fmt.Errorf("want at most 1024GiB, got %q", v)
		}
		return nil
	})
	get("FAULTS", "off", choice(&cfg.Faults, off, on))
	get("DRAIN_SECONDS", "25", seconds(&cfg.DrainTime, 0, time.Hour))
	get("LOG_LEVEL", "info", func(v string) error {
		if err := cfg.LogLevel.UnmarshalText([]byte(v)); err != nil {
			return fmt.Errorf("want debug, info, warn or error, got %q", v)
		}
		return nil
	})
	return cfg, errors.Join(faults...)
}

func wholeNumber(to *int, least, most int) func(string) error {
	return func(v string) error {
		n, err := strconv.Atoi(v)
		if err != nil || n < least || n > most {
			return fmt.Errorf("want a whole number from %d to %d, got %q", least, most, v)
		}
		*to = n
		return nil
	}
}

func number(to *float64, least, most float64) func(string) error {
	return func(v string) error {
		f, err := strconv.ParseFloat(v, 64)
		if err != nil || !(f >= least && f <= most) { // also rejects NaN
			return fmt.Errorf("want a number from %g to %g, got %q", least, most, v)
		}
		*to = f
		return nil
	}
}

func seconds(to *time.Duration, least, most time.Duration) func(string) error {
	return func(v string) error {
		var f float64
		if err := number(&f, least.Seconds(), most.Seconds())(v); err != nil {
			return fmt.Errorf("seconds: %w", err)
		}
		*to = time.Duration(f * float64(time.Second))
		return nil
	}
}

func duration(to *time.Duration, most time.Duration) func(string) error {
	return func(v string) error {
		d, err := time.ParseDuration(v)
		if err != nil || d < 0 || d > most {
			return fmt.Errorf("want a duration up to %s with its unit such as 200ms or 1.5s, got %q", most, v)
		}
		*to = d
		return nil
	}
}

func size(to *int64) func(string) error {
	return func(v string) (err error) {
		*to, err = bytesize.Parse(v)
		return err
	}
}

func choice(to *string, options ...string) func(string) error {
	return func(v string) error {
		if !slices.Contains(options, v) {
			return fmt.Errorf("want %s, got %q", strings.Join(options, " or "), v)
		}
		*to = v
		return nil
	}
}
