// Skips reads what `go test -json` prints, shows it as go test does, counts, and fails when a test was skipped that is
// not on the list of those that may be: a skipped test proves nothing, and nobody sees it in a long run.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

func main() {
	allowed, err := os.ReadFile("test/skips/allowed.txt")
	if err == nil {
		err = run(os.Stdin, os.Stdout, list(string(allowed)))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "skips:", err)
		os.Exit(1)
	}
}

// event is one line of test2json's output.
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
}

func run(in io.Reader, out io.Writer, allowed map[string]string) error {
	var passed, failed int
	skipped := map[string]string{} // why, by name
	printed := map[string]*strings.Builder{}
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		if err == io.EOF && line == "" {
			break
		}
		if err != nil && err != io.EOF {
			return err
		}
		var e event
		if json.Unmarshal([]byte(line), &e) != nil {
			fmt.Fprint(out, line) // the build's own words
			continue
		}
		name := e.Package + "." + e.Test
		switch e.Action {
		case "output", "build-output":
			if e.Test == "" {
				if !strings.HasPrefix(e.Output, "PASS") {
					fmt.Fprint(out, e.Output)
				}
				continue
			}
			if printed[name] == nil {
				printed[name] = &strings.Builder{}
			}
			printed[name].WriteString(e.Output)
		case "pass", "fail", "skip":
			if e.Test == "" {
				if e.Action == "fail" {
					failed++
				}
				continue
			}
			said := printed[name]
			delete(printed, name)
			switch e.Action {
			case "pass":
				passed++
			case "fail":
				failed++
				fmt.Fprint(out, said)
			case "skip":
				skipped[name] = why(said)
			}
		}
	}
	bad := 0
	for _, name := range slices.Sorted(maps.Keys(skipped)) {
		reason, ok := allowed[name]
		if !ok {
			bad++
			reason = "NOT ALLOWED"
		}
		fmt.Fprintf(out, "skipped: %s: %s (%s)\n", name, skipped[name], reason)
	}
	fmt.Fprintf(out, "%d passed, %d failed, %d skipped\n", passed, failed, len(skipped))
	switch {
	case failed > 0:
		return fmt.Errorf("%d failed", failed)
	case bad > 0 && os.Geteuid() == 0:
		return fmt.Errorf("%d tests were skipped that are not in test/skips/allowed.txt", bad)
	case passed == 0:
		return fmt.Errorf("no test ran")
	}
	return nil
}

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
