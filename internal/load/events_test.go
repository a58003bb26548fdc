package load_test

import (
	"slices"
	"strings"
	"testing"

	"penstock/internal/load"
)

func TestEventsOfAStream(t *testing.T) {
	tests := map[string]struct {
		stream string
		want   []string
	}{
		"one":                         {"data: a\n\n", []string{"a"}},
		"any line end":                {"data: a\r\n\r\ndata: b\r\rdata: c\n\r\n", []string{"a", "b", "c"}},
		"a space is taken off once":   {"data:  a\n\ndata:b\n\n", []string{" a", "b"}},
		"only the first line is kept": {"data: a\ndata: b\n\n", []string{"a"}},
		"without data is none":        {"event: x\nid: 1\n\n: comment\n\n", nil},
		"empty data":                  {"data\n\ndata:\n\n", []string{"", ""}},
		"other fields":                {"database: a\ndat: b\nDATA: c\n\n", nil},
		"without an end is none":      {"data: a\n", nil},
		"long data":                   {"data: " + strings.Repeat("x", 100) + "\n\n", []string{strings.Repeat("x", 32)}},
		"colons":                      {"data: a: b\nid: data: c\n\n", []string{"a: b"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := load.EventsIn([]byte(test.stream)); !slices.Equal(got, test.want) {
				t.Errorf("%q: got %q, want %q", test.stream, got, test.want)
			}
		})
	}
}

func FuzzEventsDoNotDependOnPieces(f *testing.F) {
	f.Add([]byte("data: a\r\n\r\ndata: b\n\nid: 1\rdata:c\r\r"), 7)
	f.Add([]byte("event: message\ndata: {\"choices\":[]}\n\ndata: [DONE]\n\n"), 3)
	f.Fuzz(func(t *testing.T, stream []byte, size int) {
		if size < 1 {
			return
		}
		whole, pieces := load.EventsIn(stream), load.EventsIn(slices.Collect(slices.Chunk(stream, size))...)
		if !slices.Equal(whole, pieces) {
			t.Errorf("%q: got %q in pieces of %d, want %q", stream, pieces, size, whole)
		}
		if most := strings.Count(string(stream), "data"); len(whole) > most {
			t.Errorf("%q: got %d events, want up to %d", stream, len(whole), most)
		}
	})
}
