package load_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"penstock/internal/load"
)

func TestTextSaysWhatTheSummaryKnows(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	plan := times(3)
	plan.Words = "one by one"
	var text strings.Builder
	run(t, load.Request{URL: s.URL + "/yes"}, plan).WriteText(&text)
	run(t, load.Request{URL: s.URL + "/no"}, plan).WriteText(&text)
	for _, want := range []string{
		"one by one", "3 due, 3 sent, 3 succeeded, 0 failed", "statuses     200: 3\n", "p99.9", "latency", "from sending",
		"0 succeeded, 3 failed", "statuses     503: 3\n", "status    3, such as: status 503", "failed after",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in:\n%s", want, text.String())
		}
	}
}

// elements counts the elements of a well-formed document and fails for what would be fetched when it is looked at.
func elements(t *testing.T, svg []byte) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for d := xml.NewDecoder(bytes.NewReader(svg)); ; {
		token, err := d.Token()
		if err == io.EOF {
			return counts
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, svg)
		}
		e, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		counts[e.Name.Local]++
		for _, a := range e.Attr {
			if a.Name.Local == "href" || strings.Contains(a.Value, "url(") || strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf") {
				t.Errorf("<%s %s=%q>", e.Name.Local, a.Name.Local, a.Value)
			}
		}
	}
}

func TestPicture(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "no"):
			w.WriteHeader(http.StatusServiceUnavailable)
		case strings.HasSuffix(r.URL.Path, "slow"):
			time.Sleep(600 * time.Millisecond)
		}
	})
	tests := map[string]struct {
		path string
		plan load.Plan
	}{
		"usual":                         {`/<a>&"b"`, load.Plan{Arrivals: load.Constant(500), Duration: 200 * time.Millisecond}},
		"all failed":                    {"/no", times(3)},
		"one request":                   {"/", times(1)},
		"answers long after the plan's": {"/slow", load.Plan{Arrivals: load.Constant(5000), Duration: time.Millisecond}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			o := run(t, load.Request{URL: s.URL + test.path}, test.plan)
			var svg bytes.Buffer
			if err := o.timeline.WriteSVG(&svg, o.Summary); err != nil {
				t.Fatal(err)
			}
			if n := elements(t, svg.Bytes()); n["svg"] != 1 || n["path"] < 3 || n["text"] < 10 {
				t.Errorf("got %v", n)
			}
			if svg.Len() > 100_000 {
				t.Errorf("got %d bytes", svg.Len())
			}
		})
	}
}

// full is a disk without room.
type full struct{}

var errFull = errors.New("no space left")

func (full) Write([]byte) (int, error) { return 0, errFull }

func TestRecordsThatCannotBeWrittenAreTold(t *testing.T) {
	s := serve(t, func(http.ResponseWriter, *http.Request) {})
	l, err := load.New(t.Context(), withDefaults(load.Request{URL: s.URL}), planDefaults(times(5)), full{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.Run(t.Context()); !errors.Is(err, errFull) {
		t.Errorf("got %v, want %v", err, errFull)
	}
	o := run(t, load.Request{URL: s.URL}, times(1))
	if err := o.timeline.WriteSVG(full{}, o.Summary); !errors.Is(err, errFull) {
		t.Errorf("picture: got %v, want %v", err, errFull)
	}
}
