package resource_test

import (
	"testing"

	"penstock/internal/resource"
)

func TestParseMemory(t *testing.T) {
	tests := map[string]struct {
		bytes int64
		again string // as it is written; "" when it is refused
	}{
		"1Gi":           {1 << 30, "1Gi"},
		"1.0Gi":         {1 << 30, "1Gi"},
		".5Gi":          {1 << 29, "0.5Gi"},
		"512Mi":         {1 << 29, "0.5Gi"},
		"100Mi":         {100 << 20, "100Mi"},
		"0.1Gi":         {107374182, "0.1Gi"},
		"102.4Mi":       {107374182, "0.1Gi"},
		"0Gi":           {0, "0Gi"},
		"8Gi":           {8 << 30, "8Gi"},
		"1":             {},
		"1G":            {},
		"1GB":           {},
		"-1Gi":          {},
		"1.Gi":          {},
		"Gi":            {},
		"1.234Gi":       {},
		"1e3Mi":         {},
		" 1Gi":          {},
		"99999999999Gi": {},
	}
	for in, want := range tests {
		got, err := resource.ParseMemory(in)
		if (err == nil) != (want.again != "") || got != want.bytes {
			t.Errorf("ParseMemory(%q) = %d, %v; want %d, accepted %t", in, got, err, want.bytes, want.again != "")
			continue
		}
		if err == nil && resource.FormatMemory(got) != want.again {
			t.Errorf("FormatMemory(%d) = %q, want %q", got, resource.FormatMemory(got), want.again)
		}
	}
}

func FuzzParseMemory(f *testing.F) {
	for _, s := range []string{"0.5Gi", ".5Gi", "100Mi", "0.1Gi", "9999999.99Gi", "1Gb"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		bytes, err := resource.ParseMemory(s)
		if err != nil {
			return
		}
		again, err := resource.ParseMemory(resource.FormatMemory(bytes))
		if err != nil || again != bytes {
			t.Errorf("%q is %d bytes, written as %q, which reads as %d, %v", s, bytes, resource.FormatMemory(bytes), again, err)
		}
	})
}

func TestParseQuantity(t *testing.T) {
	for in, want := range map[string]float64{
		"500m": 0.5, "1": 1, "1.5": 1.5, ".5": 0.5, "600Mi": 600 << 20, "1Gi": 1 << 30, "0.5Gi": 1 << 29, "1G": 1e9, "2k": 2000, "100000000": 1e8,
		"": 0, "0": 0, "0m": 0, "-1": 0, "+1": 0, "1Mb": 0, "1mi": 0, "1 Gi": 0, "Gi": 0, "1e3": 0, "NaN": 0, "Inf": 0, "1_000": 0, ".": 0, "9999999999999999": 0, "１": 0,
	} {
		got, err := resource.ParseQuantity(in)
		if got != want || (err == nil) != (want != 0) {
			t.Errorf("ParseQuantity(%q) = %v, %v; want %v", in, got, err, want)
		}
	}
}

func FuzzParseQuantity(f *testing.F) {
	for _, s := range []string{"500m", "1.5", ".5Gi", "0", "999999999999999Ti", "1Mb"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := resource.ParseQuantity(s); err == nil && !(n > 0 && n < 1e30) {
			t.Errorf("%q is %v, want a number above 0", s, n)
		}
	})
}

func TestParseCPU(t *testing.T) {
	for in, want := range map[float64]int64{0.25: 250, 0.5: 500, 4: 4000, 0.1: 100, 0.07: 70, 1.75: 1750, 0: 0, -1: 0, 0.125: 0, 1e9: 0} {
		got, err := resource.ParseCPU(in)
		if got != want || (err == nil) != (want != 0) {
			t.Errorf("ParseCPU(%v) = %d, %v; want %d", in, got, err, want)
		}
	}
}

func TestEphemeralStorage(t *testing.T) {
	for milli, want := range map[int64]string{250: "1Gi", 500: "2Gi", 750: "4Gi", 1000: "4Gi", 1250: "8Gi", 4000: "8Gi"} {
		if got := resource.FormatMemory(resource.EphemeralStorage(milli)); got != want {
			t.Errorf("EphemeralStorage(%d) = %s, want %s", milli, got, want)
		}
	}
}
