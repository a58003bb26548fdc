package bytesize_test

import (
	"fmt"
	"strings"
	"testing"

	"penstock/examples/chat/internal/bytesize"
)

func TestParse(t *testing.T) {
	for in, want := range map[string]int64{"0": 0, "4096": 4096, "3KiB": 3 << 10, "64MiB": 64 << 20, "2GiB": 2 << 30, "9223372036854775807": 1<<63 - 1} {
		if got, err := bytesize.Parse(in); err != nil || got != want {
			t.Errorf("%q: got %d, %v, want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "MiB", "-1", "1.5GiB", "64MB", "64 MiB", "9223372036854775807KiB", "9223372036854775808"} {
		if got, err := bytesize.Parse(in); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("got %q", in)) {
			t.Errorf("%q: got %d, %v, want an error that repeats it", in, got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"0", "64MiB", "9223372036854775807GiB", "KiB"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := bytesize.Parse(s); err == nil && n < 0 {
			t.Errorf("%q: got %d", s, n)
		}
	})
}
