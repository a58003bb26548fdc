package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// stream is the output of go test -json with these events, a second apart.
func stream(t *testing.T, events ...event) string {
	t.Helper()
	var b strings.Builder
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, e := range events {
		e.Time, at = at, at.Add(time.Second)
		line, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s\n", line)
	}
	return b.String()
}

func TestReport(t *testing.T) {
	begin := event{Action: "run", Package: "p", Test: "TestA"}
	tests := map[string]struct {
		events      []event
		err         string // "" for none
		has, absent []string
	}{
		"a test passes": {
			events: []event{begin, {Action: "output", Package: "p", Test: "TestA", Output: "quiet\n"}, {Action: "pass", Package: "p", Test: "TestA", Elapsed: 1.5}},
			has:    []string{"1 passed, 0 failed, 0 skipped", "     1.5 s  p.TestA"}, absent: []string{"quiet"},
		},
		"a test fails": {
			events: []event{begin, {Action: "output", Package: "p", Test: "TestA", Output: "got 1, want 2\n"}, {Action: "fail", Package: "p", Test: "TestA"}, {Action: "fail", Package: "p"}},
			err:    "2 failed", has: []string{"got 1, want 2"}, absent: []string{"no verdict"},
		},
		"a package ends by its time limit": {
			events: []event{begin, {Action: "output", Package: "p", Test: "TestA", Output: "panic: test timed out after 1s\n"}, {Action: "fail", Package: "p"}},
			err:    "1 failed", has: []string{"panic: test timed out", "no verdict: p.TestA was running for 2s when its package ended"},
		},
		"go test is killed": {
			events: []event{begin},
			err:    "1 failed", has: []string{"no verdict: p.TestA was running for"},
		},
		"a test that waits for others is not the one that hangs": {
			events: []event{begin, {Action: "pause", Package: "p", Test: "TestA"}, {Action: "run", Package: "p", Test: "TestB"}, {Action: "fail", Package: "p"}},
			err:    "1 failed", has: []string{"no verdict: p.TestB"}, absent: []string{"no verdict: p.TestA"},
		},
		"a test that may be skipped is": {
			events: []event{{Action: "pass", Package: "p", Test: "TestB"}, {Action: "output", Package: "p", Test: "TestMay", Output: "    x_test.go:1: needs a lake\n"}, {Action: "skip", Package: "p", Test: "TestMay"}},
			has:    []string{"skipped: p.TestMay: x_test.go:1: needs a lake (for a reason)"},
		},
		"nothing runs": {err: "no test ran"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			err := run(strings.NewReader(stream(t, test.events...)), &out, map[string]string{"p.TestMay": "for a reason"})
			if got := fmt.Sprint(err); got != test.err && (err != nil || test.err != "") {
				t.Errorf("got error %v, want %q", err, test.err)
			}
			for _, want := range test.has {
				if !strings.Contains(out.String(), want) {
					t.Errorf("no %q in\n%s", want, out.String())
				}
			}
			for _, not := range test.absent {
				if strings.Contains(out.String(), not) {
					t.Errorf("%q in\n%s", not, out.String())
				}
			}
		})
	}
}

// A test that hangs is named while it hangs.
func TestAHangingTestIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, to := io.Pipe()
		var out bytes.Buffer
		ended := make(chan error, 1)
		go func() { ended <- run(in, &out, nil) }()
		line, err := json.Marshal(event{Time: time.Now(), Action: "run", Package: "p", Test: "TestA"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := to.Write(append(line, '\n')); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2*slow + time.Second)
		synctest.Wait()
		for _, want := range []string{"still running after 2m0s: p.TestA\n", "still running after 4m0s: p.TestA\n"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("no %q in\n%s", want, out.String())
			}
		}
		to.Close()
		if err := <-ended; err == nil {
			t.Error("a test without a verdict is a success")
		}
	})
}

// The table has the ten slowest tests, without their subtests.
func TestTheSlowestAreListed(t *testing.T) {
	var events []event
	for i := range 12 {
		events = append(events,
			event{Action: "pass", Package: "p", Test: fmt.Sprintf("Test%d/sub", i), Elapsed: 99},
			event{Action: "pass", Package: "p", Test: fmt.Sprintf("Test%d", i), Elapsed: float64(i)})
	}
	var out bytes.Buffer
	if err := run(strings.NewReader(stream(t, events...)), &out, nil); err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(out.String(), "slowest tests:\n")
	lines := strings.Split(strings.TrimSpace(table), "\n")
	if len(lines) != 10 || strings.TrimSpace(lines[0]) != "11.0 s  p.Test11" || strings.TrimSpace(lines[9]) != "2.0 s  p.Test2" {
		t.Errorf("got\n%s", table)
	}
}
