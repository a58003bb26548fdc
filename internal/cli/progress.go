package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// pullView is how far a pull has come.
type pullView struct {
	Image string    `json:"image"`
	Began time.Time `json:"began"`
	Total int64     `json:"total"`
	Done  int64     `json:"done"`
	Here  int64     `json:"here"`
	Wire  int64     `json:"wire"`
	Blobs int       `json:"blobs"`
	Whole int       `json:"whole"`
}

// barWidth is that of a bar that leaves room for its words on a line of 80 characters.
const barWidth = 20

// text is one line about the pull.
func (p pullView) text(now time.Time) string {
	if p.Total == 0 {
		return "pulling " + p.Image
	}
	have := min(p.Done+p.Here, p.Total)
	filled := int(have * barWidth / p.Total)
	rate := ""
	if s := now.Sub(p.Began).Seconds(); s > 0 && p.Done > 0 {
		rate = ", " + bytesText(int64(float64(p.Done)/s)) + "/s"
	}
	return fmt.Sprintf("[%s%s] %s of %s, %d of %d layers%s", strings.Repeat("#", filled), strings.Repeat(".", barWidth-filled),
		bytesText(have), bytesText(p.Total), p.Whole, p.Blobs, rate)
}

// bar keeps one changing line below what is written through it. On anything but a terminal it shows no line.
type bar struct {
	out  io.Writer
	live bool

	mu    sync.Mutex
	shown string
}

func newBar(out io.Writer) *bar { return &bar{out: out, live: isTerminal(out)} }

const eraseLine = "\r\x1b[K"

func (b *bar) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.shown != "" {
		fmt.Fprint(b.out, eraseLine)
	}
	n, err := b.out.Write(p)
	if b.shown != "" {
		fmt.Fprint(b.out, b.shown)
	}
	return n, err
}

// show replaces the line; "" takes it away.
func (b *bar) show(line string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.live && line != b.shown {
		fmt.Fprint(b.out, eraseLine, line)
		b.shown = line
	}
}

// followPulls shows the pulls of the server on the bar until ctx ends.
func followPulls(ctx context.Context, c *Client, b *bar) {
	defer b.show("")
	if !b.live {
		return
	}
	ticker := time.NewTicker(lastPoll)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		docs, err := c.list(ctx, pullsPath)
		if err != nil {
			continue // what is shown beside it tells of a server that is gone
		}
		pulls, err := decodeAll[pullView](docs)
		switch {
		case err != nil || len(pulls) == 0:
			b.show("")
		case len(pulls) == 1:
			b.show(pulls[0].text(time.Now()))
		default:
			var all pullView
			for _, p := range pulls {
				all.Total, all.Done, all.Here = all.Total+p.Total, all.Done+p.Done, all.Here+p.Here
				all.Blobs, all.Whole = all.Blobs+p.Blobs, all.Whole+p.Whole
			}
			b.show(all.text(time.Now()))
		}
	}
}
