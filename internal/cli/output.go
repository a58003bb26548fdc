package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// show prints a value as JSON, or calls text to print it for people.
func (e *Env) show(value any, text func(w io.Writer)) error {
	if e.output == "json" {
		return writeJSON(e.Stdout, value)
	}
	text(e.Stdout)
	return nil
}

func writeJSON(w io.Writer, value any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(value)
}

// table prints rows in columns under a header. An empty list is the header alone.
func table(w io.Writer, header string, rows [][]string) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, strings.ReplaceAll(header, " ", "\t"))
	for _, row := range rows {
		for i := range row {
			if row[i] == "" {
				row[i] = "-"
			}
		}
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	t.Flush()
}

// decodeAll decodes each document into the view that a command needs.
func decodeAll[T any](docs []json.RawMessage) ([]T, error) {
	views := make([]T, len(docs))
	for i, d := range docs {
		if err := json.Unmarshal(d, &views[i]); err != nil {
			return nil, fmt.Errorf("read answer: %w", err)
		}
	}
	return views, nil
}

// age formats how long ago something was, in the largest unit that is still meaningful.
func age(at, now time.Time) string {
	if at.IsZero() {
		return ""
	}
	d := now.Sub(at)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// bytesText formats a size for people.
func bytesText(n int64) string {
	size, unit := float64(n), 0
	for unit < 3 && size >= 1023.95 { // a size that would print as 1024.0 prints as 1.0 of the next unit
		size, unit = size/1024, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", size, [...]string{"B", "KiB", "MiB", "GiB"}[unit])
}
