// Package bytesize parses amounts of memory as people write them.
package bytesize

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Parse parses a number of bytes with or without a unit: 4096, 64KiB, 64MiB, 2GiB.
func Parse(s string) (int64, error) {
	number, shift := s, 0
	for unit, n := range map[string]int{"KiB": 10, "MiB": 20, "GiB": 30} {
		if rest, ok := strings.CutSuffix(s, unit); ok {
			number, shift = rest, n
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("want bytes, KiB, MiB or GiB such as 4096 or 64MiB, got %q", s)
	}
	return n << shift, nil
}
