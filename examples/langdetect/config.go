package main

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"github.com/pemistahl/lingua-go"
)

// config holds the settings from environment variables. README.md lists them.
type config struct {
	Port         int
	Languages    []lingua.Language
	Accuracy     accuracy
	MaxTextBytes int
	LogLevel     slog.Level
}

// accuracy is how much of each language's model is loaded.
type accuracy string

const (
	full accuracy = "full" // n-grams of 1 to 5 letters
	low  accuracy = "low"  // 3 letters at most: a tenth of the memory, worse at short texts
)

// twelve are the languages of LANGUAGES=12, the default.
var twelve = []lingua.Language{
	lingua.Arabic, lingua.Chinese, lingua.English, lingua.French, lingua.German, lingua.Italian,
	lingua.Japanese, lingua.Korean, lingua.Portuguese, lingua.Russian, lingua.Spanish, lingua.Vietnamese,
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
	get("LANGUAGES", "12", func(v string) (err error) {
		cfg.Languages, err = parseLanguages(v)
		return err
	})
	get("ACCURACY", string(full), func(v string) error {
		cfg.Accuracy = accuracy(v)
		if cfg.Accuracy != full && cfg.Accuracy != low {
			return fmt.Errorf("want full or low, got %q", v)
		}
		return nil
	})
	get("MAX_TEXT_BYTES", "16384", wholeNumber(&cfg.MaxTextBytes, 1, 1<<20))
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

// parseLanguages parses "12", "75" or a list of ISO 639-1 codes such as "ko,en,de".
func parseLanguages(v string) ([]lingua.Language, error) {
	switch v {
	case "12":
		return twelve, nil
	case "75":
		return lingua.AllLanguages(), nil
	}
	var languages []lingua.Language
	for code := range strings.SplitSeq(v, ",") {
		code = strings.TrimSpace(code)
		language := lingua.GetLanguageFromIsoCode639_1(lingua.GetIsoCode639_1FromValue(code))
		if language == lingua.Unknown {
			return nil, fmt.Errorf("want 12, 75 or a list of codes out of %s, got %q in %q", allCodes(), code, v)
		}
		if slices.Contains(languages, language) {
			return nil, fmt.Errorf("want each code once, got %q twice in %q", code, v)
		}
		languages = append(languages, language)
	}
	if len(languages) < 2 {
		return nil, fmt.Errorf("want at least two languages to choose between, got %q", v)
	}
	return languages, nil
}

func allCodes() string {
	var codes []string
	for _, language := range lingua.AllLanguages() {
		codes = append(codes, codeOf(language))
	}
	slices.Sort(codes)
	return strings.Join(codes, ",")
}
