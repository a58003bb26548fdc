package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"penstock/internal/admin/wire"
)

// barWidth leaves room for the bar's text on a line of 80 characters.
const barWidth = 20

// pullText formats the progress of a pull as one line.
func pullText(p wire.Pull, now time.Time) string {
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

// bar keeps a status line below everything that is written through it. It shows the line only on a terminal.
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

// show replaces the status line; "" removes it.
func (b *bar) show(line string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.live && line != b.shown {
		fmt.Fprint(b.out, eraseLine, line)
		b.shown = line
	}
}

// followPulls shows the server's pulls on the bar until ctx ends.
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
		docs, err := c.list(ctx, wire.PullsPath)
		if err != nil {
			continue // the caller notices by itself when the server is gone
		}
		pulls, err := decodeAll[wire.Pull](docs)
		switch {
		case err != nil || len(pulls) == 0:
			b.show("")
		case len(pulls) == 1:
			b.show(pullText(pulls[0], time.Now()))
		default:
			var all wire.Pull
			for _, p := range pulls {
				all.Total, all.Done, all.Here = all.Total+p.Total, all.Done+p.Done, all.Here+p.Here
				all.Blobs, all.Whole = all.Blobs+p.Blobs, all.Whole+p.Whole
			}
			b.show(pullText(all, time.Now()))
		}
	}
}
