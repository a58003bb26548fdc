package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"penstock/internal/admin/wire"
)

type topOptions struct {
	once     bool
	interval time.Duration
}

func newTopCmd(env *Env) *cobra.Command {
	o := &topOptions{}
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Show requests, errors, latency, CPU and memory of each app and replica",
		Long: `Show requests and errors per second and latencies of the last ten seconds, and CPU and memory, of each app and replica.
On a terminal the table is refreshed until Ctrl-C. With --once, with -o json, or without a terminal it is printed once.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), cmd, env) },
	}
	cmd.Flags().BoolVar(&o.once, "once", false, "print the table once")
	cmd.Flags().DurationVar(&o.interval, "interval", 2*time.Second, "time between refreshes")
	return cmd
}

func (o *topOptions) run(ctx context.Context, cmd *cobra.Command, env *Env) error {
	if o.interval < time.Second {
		return UsageError(fmt.Errorf("--interval: want 1s or more, got %s", o.interval))
	}
	c, err := env.client(cmd)
	if err != nil {
		return err
	}
	if o.once || env.output == "json" || !isTerminal(env.Stdout) {
		doc, err := c.get(ctx, wire.UsagePath, nil)
		if err != nil {
			return err
		}
		u, err := decode[wire.Usage](doc)
		if err != nil {
			return err
		}
		return env.show(doc, func(w io.Writer) { printUsage(w, u) })
	}
	tick := time.NewTicker(o.interval)
	defer tick.Stop()
	for {
		var page bytes.Buffer
		if err := o.page(ctx, c, &page); err != nil && ctx.Err() == nil {
			fmt.Fprintf(&page, "%s  no response: %v\n", time.Now().Format(time.TimeOnly), err)
		}
		if ctx.Err() != nil {
			return nil // Ctrl-C is the normal way to end
		}
		// ECMA-48 sequences: cursor home, then erase the rest of each line and of the screen. This does not flicker.
		text := bytes.ReplaceAll(page.Bytes(), []byte("\n"), []byte("\x1b[K\n"))
		if _, err := fmt.Fprintf(env.Stdout, "\x1b[H%s\x1b[J", text); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (o *topOptions) page(ctx context.Context, c *Client, w io.Writer) error {
	doc, err := c.get(ctx, wire.UsagePath, nil)
	if err != nil {
		return err
	}
	u, err := decode[wire.Usage](doc)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "%s  every %s, Ctrl-C ends\n\n", u.At.Local().Format(time.TimeOnly), o.interval)
	printUsage(w, u)
	return nil
}

func printUsage(w io.Writer, u *wire.Usage) {
	var rows [][]string
	for _, a := range u.Apps {
		name := a.Name
		if name == "" {
			name = "(no app)"
		}
		state := fmt.Sprintf("%d of %d replicas", len(a.Replicas), a.Wanted)
		rows = append(rows, append(append([]string{name, state}, loadColumns(&a.Load, strconv.Itoa(a.Waiting))...), a.Reason))
		for _, r := range a.Replicas {
			rows = append(rows, append(append([]string{"  " + r.Name, r.State}, loadColumns(&r.Load, "")...), ""))
		}
	}
	table(w, "NAME STATE REQ/S ERR/S P50 P95 INFLIGHT WAITING CPU MEMORY OF WHY", rows)
}

func loadColumns(v *wire.Load, waiting string) []string {
	share := ""
	if v.MemoryLimitBytes > 0 {
		share = fmt.Sprintf("%s %2d%%", bytesText(int64(v.MemoryLimitBytes)), 100*v.MemoryBytes/v.MemoryLimitBytes)
	}
	return []string{
		fmt.Sprintf("%.1f", v.RequestsPerSecond), fmt.Sprintf("%.1f", v.ErrorsPerSecond), milliseconds(v.P50Ms), milliseconds(v.P95Ms),
		strconv.Itoa(v.InFlight), waiting, fmt.Sprintf("%.2f", v.CPU), bytesText(int64(v.MemoryBytes)), share,
	}
}

// milliseconds formats a latency with two significant digits. It returns "" if nothing was measured.
func milliseconds(ms float64) string {
	switch {
	case ms <= 0:
		return ""
	case ms < 10:
		return fmt.Sprintf("%.1fms", ms)
	case ms < 10_000:
		return fmt.Sprintf("%.0fms", ms)
	}
	return fmt.Sprintf("%.0fs", ms/1000)
}

// isTerminal reports whether w is a terminal.
func isTerminal(w io.Writer) bool {
	if out, ok := w.(*stdout); ok {
		w = out.Writer
	}
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && f.Name() != os.DevNull
}
