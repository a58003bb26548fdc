package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode"

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

	mu      sync.Mutex
	shown   string
	line    string    // what show was given
	idle    string    // shown while there is no line
	printed time.Time // when the last line was written
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
	b.printed = time.Now()
	if b.shown != "" {
		fmt.Fprint(b.out, b.shown)
	}
	return n, err
}

// show replaces the status line; "" removes it.
func (b *bar) show(line string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.line = line
	b.refresh()
}

func (b *bar) refresh() {
	if line := cmp.Or(b.line, b.idle); b.live && line != b.shown {
		fmt.Fprint(b.out, eraseLine, line)
		b.shown = line
	}
}

// quietLimit is how long nothing is printed, at most, while a command waits.
const quietLimit = 4 * time.Second

// pulse shows that the command is alive until ctx ends: on a terminal in the status line, otherwise with a line whenever nothing
// was printed for quietLimit. text returns what is going on; "" prints nothing.
func (b *bar) pulse(ctx context.Context, text func(now time.Time) string) {
	b.mu.Lock()
	b.printed = time.Now()
	b.mu.Unlock()
	ticker := time.NewTicker(quietLimit / 8)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			b.mu.Lock()
			b.idle = ""
			b.refresh()
			b.mu.Unlock()
			return
		case now := <-ticker.C:
			line := text(now)
			b.mu.Lock()
			if b.live {
				b.idle = clip(line)
				b.refresh()
			} else if line = cmp.Or(b.line, line); line != "" && now.Sub(b.printed) >= quietLimit {
				b.printed = now
				fmt.Fprintln(b.out, printable(line))
			}
			b.mu.Unlock()
		}
	}
}

// lineWidth is the width of a terminal that a status line must fit in. A longer line could not be erased.
const lineWidth = 79

// printable removes the control characters of text that may come from another program.
func printable(line string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, line)
}

// clip makes a line that is not too wide.
func clip(line string) string {
	all := []rune(printable(line))
	if len(all) > lineWidth {
		return string(all[:lineWidth-3]) + "..."
	}
	return string(all)
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
