// Report reads what `go test -json` prints and shows it as go test does. It says which tests run for minutes, which were
// running when a package ended without a verdict, and which took longest. It fails when a test failed, and when a test
// was skipped that is not on the list of those that may be: a skipped test proves nothing, and nobody sees it in a long
// run.
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"
)

const (
	// slow is how long a test runs before the report tells so, and how often it tells it again. It is longer than any test
	// takes on a quiet machine.
	slow = 2 * time.Minute
	// longest is how many tests the table at the end has.
	longest = 10
)

func main() {
	signal.Ignore(os.Interrupt) // go test ends by it; what was running is still to be told
	allowed, err := os.ReadFile("test/report/allowed.txt")
	if err == nil {
		err = run(os.Stdin, os.Stdout, list(string(allowed)))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

// event is one line of test2json's output.
type event struct {
	Time    time.Time
	Action  string
	Package string
	Test    string
	Output  string
	Elapsed float64 // seconds
}

// test names a test or a subtest.
type test struct{ pkg, name string }

func (t test) String() string { return t.pkg + "." + t.name }

// report is what the events so far say.
type report struct {
	out            io.Writer
	passed, failed int
	skipped        map[test]string // why
	said           map[test]*strings.Builder
	running        map[test]time.Time // since when
	took           map[test]time.Duration
}

// run reads events until in ends. A line that is no event is printed as it is.
func run(in io.Reader, out io.Writer, allowed map[string]string) error {
	r := &report{
		out: out, skipped: map[test]string{}, said: map[test]*strings.Builder{},
		running: map[test]time.Time{}, took: map[test]time.Duration{},
	}
	lines, failed := make(chan string), make(chan error, 1)
	go func() {
		defer close(lines)
		for reader := bufio.NewReader(in); ; {
			line, err := reader.ReadString('\n')
			if line != "" {
				lines <- line
			}
			if err != nil {
				if err != io.EOF {
					failed <- err
				}
				return
			}
		}
	}()
	remind := time.NewTicker(slow)
	defer remind.Stop()
	for open := true; open; {
		select {
		case <-remind.C:
			r.tellRunning(time.Now(), slow)
		case line, more := <-lines:
			if open = more; !more {
				break
			}
			var e event
			if json.Unmarshal([]byte(line), &e) != nil {
				fmt.Fprint(out, line) // the build's own words
				continue
			}
			r.take(e)
		}
	}
	select {
	case err := <-failed:
		return err
	default:
		return r.end(allowed)
	}
}

// take adds one event.
func (r *report) take(e event) {
	t := test{e.Package, e.Test}
	if e.Test == "" {
		r.takePackage(e)
		return
	}
	switch e.Action {
	case "run", "cont":
		r.running[t] = e.Time
	case "pause": // it waits for others, as t.Parallel has it
		delete(r.running, t)
	case "output":
		if r.said[t] == nil {
			r.said[t] = &strings.Builder{}
		}
		r.said[t].WriteString(e.Output)
	case "pass", "fail", "skip":
		said := r.said[t]
		delete(r.said, t)
		delete(r.running, t)
		if !strings.Contains(e.Test, "/") {
			r.took[t] = time.Duration(e.Elapsed * float64(time.Second))
		}
		switch e.Action {
		case "pass":
			r.passed++
		case "fail":
			r.failed++
			if said != nil {
				fmt.Fprint(r.out, said)
			}
		case "skip":
			r.skipped[t] = why(said)
		}
	}
}

// takePackage adds an event of a package as a whole.
func (r *report) takePackage(e event) {
	switch e.Action {
	case "output", "build-output":
		if !strings.HasPrefix(e.Output, "PASS") {
			fmt.Fprint(r.out, e.Output)
		}
	case "fail":
		r.failed++
		r.tellUnfinished(e.Package, e.Time)
	}
}

// tellRunning names the tests that have been running for that long.
func (r *report) tellRunning(now time.Time, least time.Duration) {
	for _, t := range slices.SortedFunc(maps.Keys(r.running), byName) {
		if took := now.Sub(r.running[t]); took >= least {
			fmt.Fprintf(r.out, "still running after %s: %s\n", took.Round(time.Second), t)
		}
	}
}

// tellUnfinished shows the tests of a package, or of all when pkg is empty, that have begun and not ended, with what they
// printed.
func (r *report) tellUnfinished(pkg string, at time.Time) {
	open := slices.DeleteFunc(slices.SortedFunc(maps.Keys(r.running), byName), func(t test) bool { return pkg != "" && t.pkg != pkg })
	for _, t := range open {
		if said := r.said[t]; said != nil {
			fmt.Fprint(r.out, said)
		}
		delete(r.said, t)
	}
	for _, t := range open {
		ran := at.Sub(r.running[t])
		fmt.Fprintf(r.out, "no verdict: %s was running for %s when its package ended\n", t, ran.Round(time.Second))
		delete(r.running, t)
		if !strings.Contains(t.name, "/") {
			r.took[t] = ran
		}
		if pkg == "" {
			r.failed++
		}
	}
}

// end prints what is known at the end, and says what was wrong.
func (r *report) end(allowed map[string]string) error {
	r.tellUnfinished("", time.Now())
	bad := 0
	for _, t := range slices.SortedFunc(maps.Keys(r.skipped), byName) {
		reason, ok := allowed[t.String()]
		if !ok {
			bad++
			reason = "NOT ALLOWED"
		}
		fmt.Fprintf(r.out, "skipped: %s: %s (%s)\n", t, r.skipped[t], reason)
	}
	fmt.Fprintf(r.out, "%d passed, %d failed, %d skipped\n", r.passed, r.failed, len(r.skipped))
	r.slowest()
	switch {
	case r.failed > 0:
		return fmt.Errorf("%d failed", r.failed)
	case bad > 0 && os.Geteuid() == 0:
		return fmt.Errorf("%d tests were skipped that are not in test/report/allowed.txt", bad)
	case r.passed == 0:
		return fmt.Errorf("no test ran")
	}
	return nil
}

// slowest is a table of the tests that took longest.
func (r *report) slowest() {
	all := slices.SortedFunc(maps.Keys(r.took), func(a, b test) int {
		return cmp.Or(cmp.Compare(r.took[b], r.took[a]), byName(a, b))
	})
	fmt.Fprintln(r.out, "slowest tests:")
	for _, t := range all[:min(len(all), longest)] {
		fmt.Fprintf(r.out, "%8.1f s  %s\n", r.took[t].Seconds(), t)
	}
}

func byName(a, b test) int { return cmp.Compare(a.String(), b.String()) }

// why is the last line that a skipped test said.
func why(said *strings.Builder) string {
	if said == nil {
		return "no reason given"
	}
	var last string
	for line := range strings.Lines(said.String()) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "---") && !strings.HasPrefix(line, "===") {
			last = line
		}
	}
	return last
}

// list reads lines of "package.Test: why it may be skipped".
func list(text string) map[string]string {
	allowed := map[string]string{}
	for line := range strings.Lines(text) {
		name, reason, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if ok && !strings.HasPrefix(name, "#") {
			allowed[name] = reason
		}
	}
	return allowed
}
