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
)

type topOptions struct {
	once     bool
	interval time.Duration
}

func newTopCmd(env *Env) *cobra.Command {
	o := &topOptions{}
	cmd := &cobra.Command{
		Use:   "top",
		Short: "What each app and replica does now: requests, errors, latency, CPU, memory",
		Long: `Show requests and errors a second and latencies of the last ten seconds, CPU and memory of each app and its replicas.
On a terminal it is shown again and again until Ctrl-C; else, with --once or -o json, once.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), cmd, env) },
	}
	cmd.Flags().BoolVar(&o.once, "once", false, "show it once")
	cmd.Flags().DurationVar(&o.interval, "interval", 2*time.Second, "how often it is shown")
	return cmd
}

type loadView struct {
	RequestsPerSecond, ErrorsPerSecond float64
	P50Ms, P95Ms                       float64
	InFlight                           int
	CPU                                float64
	MemoryBytes, MemoryLimitBytes      int64
}

type usageView struct {
	At   time.Time
	Apps []struct {
		Name    string
		Waiting int
		loadView
		Replicas []struct {
			Name, State string
			loadView
		}
	}
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
		doc, err := c.get(ctx, usagePath, nil)
		if err != nil {
			return err
		}
		u, err := decode[usageView](doc)
		if err != nil {
			return err
		}
		return env.show(doc, func(w io.Writer) { u.print(w) })
	}
	tick := time.NewTicker(o.interval)
	defer tick.Stop()
	for {
		var page bytes.Buffer
		if err := o.page(ctx, c, &page); err != nil && ctx.Err() == nil {
			fmt.Fprintf(&page, "%s  no answer: %v\n", time.Now().Format(time.TimeOnly), err)
		}
		if ctx.Err() != nil {
			return nil // Ctrl-C is how it ends
		}
		// ECMA-48: cursor home; erase the rest of each line that is written and of the screen, so that nothing flickers.
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

const usagePath = "/penstock/v1/usage"

func (o *topOptions) page(ctx context.Context, c *Client, w io.Writer) error {
	doc, err := c.get(ctx, usagePath, nil)
	if err != nil {
		return err
	}
	u, err := decode[usageView](doc)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "%s  every %s, Ctrl-C ends\n\n", u.At.Local().Format(time.TimeOnly), o.interval)
	u.print(w)
	return nil
}

func (u *usageView) print(w io.Writer) {
	var rows [][]string
	for _, a := range u.Apps {
		name := a.Name
		if name == "" {
			name = "(of no app)"
		}
		rows = append(rows, append([]string{name, fmt.Sprintf("%d replicas", len(a.Replicas))}, a.columns(strconv.Itoa(a.Waiting))...))
		for _, r := range a.Replicas {
			rows = append(rows, append([]string{"  " + r.Name, r.State}, r.columns("")...))
		}
	}
	table(w, "NAME STATE REQ/S ERR/S P50 P95 INFLIGHT WAITING CPU MEMORY OF", rows)
}

func (v *loadView) columns(waiting string) []string {
	share := ""
	if v.MemoryLimitBytes > 0 {
		share = fmt.Sprintf("%s %2d%%", bytesText(v.MemoryLimitBytes), 100*v.MemoryBytes/v.MemoryLimitBytes)
	}
	return []string{
		fmt.Sprintf("%.1f", v.RequestsPerSecond), fmt.Sprintf("%.1f", v.ErrorsPerSecond), milliseconds(v.P50Ms), milliseconds(v.P95Ms),
		strconv.Itoa(v.InFlight), waiting, fmt.Sprintf("%.2f", v.CPU), bytesText(v.MemoryBytes), share,
	}
}

// milliseconds is a latency with two digits that mean something; "" when nothing was measured.
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

// isTerminal says whether people see what is written there as it comes.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && f.Name() != os.DevNull
}
