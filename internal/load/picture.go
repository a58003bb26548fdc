package load

import (
	"bufio"
	"fmt"
	"html"
	"io"
	"math"
	"strconv"
	"time"
)

// Dimensions of the chart.
const (
	pictureWidth  = 960
	pictureHeight = 600
	plotLeft      = 70
	plotRight     = 940
	latencyTop    = 70
	latencyBottom = 330
	rateTop       = 390
	rateBottom    = 550
)

// Colours that people with any colour vision can distinguish (Okabe and Ito).
const (
	colourP50    = "#0072B2"
	colourP99    = "#E69F00"
	colourMax    = "#999999"
	colourDue    = "#999999"
	colourDone   = "#009E73"
	colourFailed = "#D55E00"
)

// WriteSVG draws latency and rate over time. Latencies are drawn at the time at which their requests were due.
func (t *Timeline) WriteSVG(w io.Writer, s *Summary) error {
	p := &picture{w: bufio.NewWriter(w), end: time.Duration(len(t.bins)) * t.width}
	p.printf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="12" fill="#333">`+"\n",
		pictureWidth, pictureHeight, pictureWidth, pictureHeight)
	p.printf(`<rect width="100%%" height="100%%" fill="#fff"/>` + "\n")
	p.text(plotLeft, 24, "start", 15, s.URL+", "+s.Arrivals)
	line := fmt.Sprintf("%d requests, %d failed, %.1f/s succeeded", s.Requests, s.Failed, s.PerSecond)
	if q := s.Latency; q != nil {
		line += fmt.Sprintf("; latency ms: p50 %.3f, p90 %.3f, p99 %.3f, p99.9 %.3f, max %.3f", q.P50, q.P90, q.P99, q.P999, q.Max)
	}
	p.text(plotLeft, 42, "start", 12, line)
	p.latency(t)
	p.rate(t)
	p.printf("</svg>\n")
	return p.w.Flush()
}

type picture struct {
	w   *bufio.Writer
	end time.Duration
}

// printf ignores errors, because bufio keeps them for Flush.
func (p *picture) printf(format string, args ...any) { fmt.Fprintf(p.w, format, args...) }

func (p *picture) text(x, y float64, anchor string, size int, text string) {
	p.printf(`<text x="%.1f" y="%.1f" text-anchor="%s" font-size="%d">%s</text>`+"\n", x, y, anchor, size, html.EscapeString(text))
}

func (p *picture) x(at time.Duration) float64 {
	return plotLeft + float64(at)/float64(max(1, p.end))*(plotRight-plotLeft)
}

// grid draws a line across a plot, with its value.
func (p *picture) grid(y float64, value string) {
	p.printf(`<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#ddd"/>`+"\n", plotLeft, plotRight, y, y)
	p.text(plotLeft-6, y+4, "end", 11, value)
}

// times draws the time axis of a plot.
func (p *picture) times(top, bottom float64) {
	step := niceStep(p.end.Seconds() / 8)
	for at := 0.0; at <= p.end.Seconds(); at += step {
		x := p.x(seconds(at))
		p.printf(`<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="#eee"/>`+"\n", x, x, top, bottom)
		p.text(x, bottom+15, "middle", 11, number(at)+" s")
	}
}

// number formats a value on an axis without rounding errors.
func number(v float64) string { return strconv.FormatFloat(math.Round(v*1e6)/1e6, 'f', -1, 64) }

// niceStep rounds up to 1, 2 or 5 times a power of ten.
func niceStep(s float64) float64 {
	if s <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(s)))
	for _, m := range []float64{1, 2, 5} {
		if m*power >= s {
			return m * power
		}
	}
	return 10 * power
}

// curve draws values over the bins; one below 0 is a gap.
func (p *picture) curve(t *Timeline, colour, name string, legend float64, top float64, value func(*bin) float64, y func(float64) float64) {
	p.printf(`<path fill="none" stroke="%s" stroke-width="1.5" stroke-linejoin="round" d="`, colour)
	pen := "M"
	for i := range t.bins {
		v := value(&t.bins[i])
		if v < 0 {
			pen = "M"
			continue
		}
		p.printf("%s%.1f %.1f", pen, p.x(time.Duration(i)*t.width+t.width/2), y(v))
		if pen == "M" {
			p.printf("h0.1") // makes a point between two gaps visible
		}
		pen = "L"
	}
	p.printf(`"/>` + "\n")
	p.printf(`<rect x="%.1f" y="%.1f" width="14" height="3" fill="%s"/>`+"\n", legend, top-12, colour)
	p.text(legend+18, top-8, "start", 11, name)
}

func (p *picture) latency(t *Timeline) {
	low, high := math.Inf(1), 0.0
	for i := range t.bins {
		if h := t.bins[i].latency; h.Count() > 0 {
			low, high = min(low, max(1e-3, ms(h.Quantile(0.5)))), max(high, ms(h.Quantile(1)))
		}
	}
	p.text(plotLeft, latencyTop-8, "start", 12, "latency, ms")
	p.times(latencyTop, latencyBottom)
	if high == 0 {
		p.text((plotLeft+plotRight)/2, (latencyTop+latencyBottom)/2, "middle", 12, "no request succeeded")
		return
	}
	from, to := math.Floor(math.Log10(low)), math.Ceil(math.Log10(max(high, low*1.01)))
	y := func(v float64) float64 {
		share := (max(math.Log10(v), from) - from) / (to - from)
		return latencyBottom - share*(latencyBottom-latencyTop)
	}
	for e := from; e <= to; e++ {
		p.grid(y(math.Pow(10, e)), number(math.Pow(10, e)))
	}
	quantile := func(q float64) func(*bin) float64 {
		return func(b *bin) float64 {
			if b.latency.Count() == 0 {
				return -1
			}
			return max(1e-3, ms(b.latency.Quantile(q)))
		}
	}
	p.curve(t, colourMax, "max", 320, latencyTop, quantile(1), y)
	p.curve(t, colourP99, "p99", 260, latencyTop, quantile(0.99), y)
	p.curve(t, colourP50, "p50", 200, latencyTop, quantile(0.5), y)
}

func (p *picture) rate(t *Timeline) {
	per := func(n int64) float64 { return float64(n) / t.width.Seconds() }
	high := 0.0
	for _, b := range t.bins {
		high = max(high, per(b.due), per(b.done), per(b.failed))
	}
	p.text(plotLeft, rateTop-8, "start", 12, "requests a second")
	p.times(rateTop, rateBottom)
	step := niceStep(high / 4)
	top := math.Ceil(max(high, step)/step) * step
	y := func(v float64) float64 { return rateBottom - v/top*(rateBottom-rateTop) }
	for v := 0.0; v <= top+step/2; v += step {
		p.grid(y(v), number(v))
	}
	p.curve(t, colourDue, "due", 260, rateTop, func(b *bin) float64 { return per(b.due) }, y)
	p.curve(t, colourDone, "succeeded", 320, rateTop, func(b *bin) float64 { return per(b.done) }, y)
	p.curve(t, colourFailed, "failed", 410, rateTop, func(b *bin) float64 {
		if b.failed == 0 {
			return -1
		}
		return per(b.failed)
	}, y)
}
