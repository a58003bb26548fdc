package resource

import (
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	mebibyte = 1 << 20
	gibibyte = 1 << 30
)

// ParseMemory parses an amount of memory in the notation of Container Apps: "0.5Gi", ".5Gi", "250Mi". It refuses more
// than two decimals, so that FormatMemory can write every amount that was accepted.
func ParseMemory(s string) (bytes int64, err error) {
	bad := fmt.Errorf("want a number of at most two decimals with Gi or Mi, as in 0.5Gi, got %q", s)
	unit := int64(gibibyte)
	number, ok := strings.CutSuffix(s, "Gi")
	if !ok {
		if number, ok = strings.CutSuffix(s, "Mi"); !ok {
			return 0, bad
		}
		unit = mebibyte
	}
	whole, fraction, dot := strings.Cut(number, ".")
	if whole+fraction == "" || dot && fraction == "" || len(whole) > 7 || len(fraction) > 2 || strings.Trim(whole+fraction, "0123456789") != "" {
		return 0, bad
	}
	hundredths, err := strconv.ParseInt(whole+(fraction + "00")[:2], 10, 64)
	if err != nil {
		return 0, bad
	}
	// The result is rounded, because 0.1Gi is not a whole number of bytes.
	return (hundredths*unit + 50) / 100, nil
}

// FormatMemory writes an amount so that ParseMemory returns the same number of bytes. It uses Gi where that is possible.
func FormatMemory(bytes int64) string {
	for _, unit := range []struct {
		bytes int64
		name  string
	}{{gibibyte, "Gi"}, {mebibyte, "Mi"}} {
		hundredths := int64(math.Round(float64(bytes) * 100 / float64(unit.bytes)))
		if (hundredths*unit.bytes+50)/100 == bytes {
			return strconv.FormatFloat(float64(hundredths)/100, 'f', -1, 64) + unit.name
		}
	}
	return strconv.FormatInt(bytes, 10)
}

// quantities are the suffixes of Kubernetes' quantities.
func quantities() map[string]float64 {
	return map[string]float64{
		"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40,
	}
}

var quantityForm = regexp.MustCompile(`^([0-9]{1,15}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})([a-zA-Z]{0,2})$`)

// ParseQuantity parses a Kubernetes quantity above 0, as scale rules have them: "500m", "1.5", "600Mi".
func ParseQuantity(s string) (float64, error) {
	parts := quantityForm.FindStringSubmatch(s)
	if parts == nil {
		return 0, fmt.Errorf("want a quantity, as in 500m, 1.5 or 600Mi, got %q", s)
	}
	factor, ok := quantities()[parts[2]]
	number, err := strconv.ParseFloat(parts[1], 64)
	if !ok || err != nil {
		return 0, fmt.Errorf("want a number with one of %s or without a unit, got %q", strings.Join(slices.DeleteFunc(slices.Sorted(maps.Keys(quantities())), func(u string) bool { return u == "" }), ", "), s)
	}
	if number *= factor; !(number > 0) {
		return 0, fmt.Errorf("want a quantity above 0, got %q", s)
	}
	return number, nil
}

// ParseCPU converts a number of vCPUs to thousandths. Azure accepts at most two decimals.
func ParseCPU(vcpu float64) (milli int64, err error) {
	hundredths := math.Round(vcpu * 100)
	switch {
	case !(vcpu > 0):
		return 0, fmt.Errorf("want more than 0, got %v", vcpu)
	case math.Abs(vcpu*100-hundredths) > 1e-6:
		return 0, fmt.Errorf("want at most two decimals, got %v", vcpu)
	case vcpu > 1000:
		return 0, fmt.Errorf("want at most 1000, got %v", vcpu)
	}
	return int64(hundredths) * 10, nil
}

// EphemeralStorage returns how much disk space a replica with that many vCPUs gets
// (learn.microsoft.com/azure/container-apps/storage-mounts).
func EphemeralStorage(milliCPU int64) (bytes int64) {
	switch {
	case milliCPU <= 250:
		return 1 * gibibyte
	case milliCPU <= 500:
		return 2 * gibibyte
	case milliCPU <= 1000:
		return 4 * gibibyte
	}
	return 8 * gibibyte
}
