package load

import (
	"bufio"
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxTraceRows bounds the memory of a trace: 24 bytes a row.
const maxTraceRows = 10_000_000

// Times in traces: the Azure LLM inference traces', RFC 3339, or plain seconds.
const azureTraceTime = "2006-01-02 15:04:05"

// Names that the time's column has in published traces.
var timeColumns = []string{"timestamp", "time", "arrived_at", "arrival_timestamp"}

// ReadTrace reads a CSV of arrivals: a column of times, and numbers of tokens in the columns ContextTokens and
// GeneratedTokens where it has them. Without a header line the first column is the time. The first arrival is at 0; rows
// out of order are put in order.
func ReadTrace(r io.Reader) ([]Arrival, error) {
	rows := csv.NewReader(bufio.NewReader(r))
	rows.ReuseRecord = true
	rows.TrimLeadingSpace = true
	var trace []Arrival
	var first float64
	at, context, output := 0, -1, -1
	for head := true; ; head = false {
		row, err := rows.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("trace: %w", err)
		}
		if head {
			row[0] = strings.TrimPrefix(row[0], "\ufeff")
			if _, err := parseTraceTime(row[0]); err != nil {
				if at, context, output, err = traceColumns(row); err != nil {
					return nil, err
				}
				continue
			}
		}
		line, _ := rows.FieldPos(0)
		t, err := parseTraceTime(row[at])
		if err != nil {
			return nil, fmt.Errorf("trace: line %d: %w", line, err)
		}
		if len(trace) == maxTraceRows {
			return nil, fmt.Errorf("trace: line %d: want up to %d rows", line, maxTraceRows)
		}
		if len(trace) == 0 {
			first = t
		}
		a := Arrival{At: seconds(t - first)}
		if t-first < -maxTime.Seconds() || t-first > maxTime.Seconds() {
			return nil, fmt.Errorf("trace: line %d: want a time within %s of the first, got %q", line, maxTime, row[at])
		}
		tokens := func(column int) int {
			n := 0
			if column >= 0 && err == nil {
				if n, err = strconv.Atoi(row[column]); err != nil || n < 0 {
					err = fmt.Errorf("trace: line %d: want a number of tokens, got %q", line, row[column])
				}
			}
			return n
		}
		a.ContextTokens, a.GeneratedTokens = tokens(context), tokens(output)
		if err != nil {
			return nil, err
		}
		trace = append(trace, a)
	}
	if len(trace) == 0 {
		return nil, errors.New("trace: no arrivals in it")
	}
	slices.SortStableFunc(trace, func(a, b Arrival) int { return cmp.Compare(a.At, b.At) })
	start := trace[0].At
	for i := range trace {
		trace[i].At -= start
	}
	return trace, nil
}

// traceColumns finds the columns by a header line's names.
func traceColumns(header []string) (at, context, output int, err error) {
	column := func(names ...string) int {
		return slices.IndexFunc(header, func(h string) bool { return slices.Contains(names, strings.ToLower(strings.TrimSpace(h))) })
	}
	at, context, output = column(timeColumns...), column("contexttokens"), column("generatedtokens")
	if at < 0 {
		return 0, 0, 0, fmt.Errorf("trace: line 1: want a time or a header with one of the columns %s, got %q", strings.Join(timeColumns, ", "), strings.Join(header, ","))
	}
	return at, context, output, nil
}

// parseTraceTime reads a time as seconds, from whenever.
func parseTraceTime(text string) (float64, error) {
	text = strings.TrimSpace(text)
	if s, err := strconv.ParseFloat(text, 64); err == nil && !math.IsNaN(s) && math.Abs(s) < 1e11 {
		return s, nil
	}
	for _, layout := range []string{azureTraceTime, time.RFC3339} {
		if t, err := time.Parse(layout, text); err == nil {
			// From the start of 2020: near enough that a float64 keeps the 100 ns of these traces.
			return t.Sub(time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)).Seconds(), nil
		}
	}
	return 0, fmt.Errorf("want a time such as 2023-11-16 18:17:03.9799600, RFC 3339 or seconds, got %q", text)
}
