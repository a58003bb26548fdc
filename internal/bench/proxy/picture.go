package proxy

import (
	"bufio"
	"fmt"
	"html"
	"io"
)

// The dimensions of the picture.
const (
	pictureWidth = 960
	barLeft      = 150
	barRight     = 880
	barHeight    = 18
	barGap       = 8
	panelHead    = 34
)

// Colours that people with any colour vision can tell apart (Okabe and Ito).
const (
	colourOurs   = "#0072B2"
	colourTheirs = "#999999"
)

// WriteSVG draws the CPU time of a request and the latency added to it.
func (r *Result) WriteSVG(w io.Writer) error {
	panels := []struct {
		title, unit string
		value       func(*Row) float64
		direct      bool // the direct row has this value too
	}{
		{fmt.Sprintf("CPU a request of 1 KiB, %d connections", r.Connections), "µs", func(row *Row) float64 { return row.CPU }, true},
		{"added latency, 1 connection, p50", "µs", func(row *Row) float64 { return row.Added }, false},
		{"delay of an event, p50", "ms", func(row *Row) float64 { return row.EventDelay }, true},
		{fmt.Sprintf("requests a second, %d connections", r.Connections), "/s", func(row *Row) float64 { return row.PerSecond }, true},
	}
	panelHeight := panelHead + len(r.Rows)*(barHeight+barGap)
	out := bufio.NewWriter(w) // Flush returns the first write error
	fmt.Fprintf(out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %[1]d %[2]d" width="%[1]d" height="%[2]d" font-family="sans-serif" font-size="12" fill="#333">`+"\n",
		pictureWidth, len(panels)*panelHeight+20)
	fmt.Fprintln(out, `<rect width="100%" height="100%" fill="#fff"/>`)
	for n, p := range panels {
		y := n*panelHeight + 24
		fmt.Fprintf(out, `<text x="20" y="%d" font-size="14">%s</text>`+"\n", y, html.EscapeString(p.title))
		most := 0.0
		for i := range r.Rows {
			most = max(most, p.value(&r.Rows[i]))
		}
		y += 10
		for i := range r.Rows {
			row := &r.Rows[i]
			if row.Name == nameDirect && !p.direct {
				continue
			}
			colour := colourTheirs
			if row.Name == namePenstock {
				colour = colourOurs
			}
			width := 0.0
			if most > 0 {
				width = max(0, p.value(row)) / most * (barRight - barLeft)
			}
			fmt.Fprintf(out, `<text x="%d" y="%d" text-anchor="end">%s</text>`, barLeft-8, y+barHeight-5, html.EscapeString(row.Name))
			fmt.Fprintf(out, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`, barLeft, y, width, barHeight, colour)
			fmt.Fprintf(out, `<text x="%.1f" y="%d">%s %s</text>`+"\n", barLeft+width+6, y+barHeight-5, figure(p.value(row)), p.unit)
			y += barHeight + barGap
		}
	}
	fmt.Fprintln(out, "</svg>")
	return out.Flush()
}

// figure formats a value with a sensible number of digits.
func figure(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
