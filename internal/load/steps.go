package load

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

const (
	maxRate  = 1e6 // requests per second; more than one process can send
	maxSteps = 10_000
	maxTime  = 7 * 24 * time.Hour
)

// ParseSteps parses steps such as "10/s for 30s, 0/s for 5s, 100/s for 1m".
func ParseSteps(text string) ([]Step, error) {
	var steps []Step
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		fault := func(format string, args ...any) error {
			return fmt.Errorf("step %d: %s", len(steps)+1, fmt.Sprintf(format, args...))
		}
		if len(steps) == maxSteps {
			return nil, fmt.Errorf("steps: want up to %d", maxSteps)
		}
		rate, length, ok := strings.Cut(part, " for ")
		if !ok {
			return nil, fault(`want a rate and a time such as "10/s for 30s", got %q`, part)
		}
		perSecond, err := parseRate(strings.TrimSpace(rate))
		if err != nil {
			return nil, fault("%v", err)
		}
		d, err := time.ParseDuration(strings.TrimSpace(length))
		if err != nil || d <= 0 || d > maxTime {
			return nil, fault("want a time above 0 and up to %s such as 30s, got %q", maxTime, length)
		}
		steps = append(steps, Step{PerSecond: perSecond, For: d})
	}
	if sum := Total(steps); sum > maxTime {
		return nil, fmt.Errorf("steps: want up to %s together, got %s", maxTime, sum)
	}
	return steps, nil
}

// parseRate parses a rate such as "10/s", "90/m" or "0.5/s" and returns requests per second.
func parseRate(text string) (float64, error) {
	number, per := text, 1.0
	if n, ok := strings.CutSuffix(text, "/s"); ok {
		number = n
	} else if n, ok := strings.CutSuffix(text, "/m"); ok {
		number, per = n, 60
	} else {
		return 0, fmt.Errorf("want a rate a second or a minute such as 10/s or 90/m, got %q", text)
	}
	rate, err := strconv.ParseFloat(number, 64)
	if err != nil || math.IsNaN(rate) || rate < 0 || rate/per > maxRate {
		return 0, fmt.Errorf("want a rate from 0 to %.0f/s, got %q", maxRate, text)
	}
	return rate / per, nil
}
