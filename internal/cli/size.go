package cli

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// parseSize parses a number of bytes: 0, 1500, 500MB, 5GB.
func parseSize(s string) (int64, error) {
	digits, factor := s, int64(1)
	for suffix, f := range map[string]int64{"KB": 1e3, "MB": 1e6, "GB": 1e9} {
		if rest, ok := strings.CutSuffix(s, suffix); ok {
			digits, factor = rest, f
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/factor {
		return 0, fmt.Errorf("want bytes such as 500MB or 5GB, got %q", s)
	}
	return n * factor, nil
}
