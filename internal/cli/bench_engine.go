package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"penstock/internal/bench"
)

type benchEngineOptions struct {
	program        string
	port           int
	cycles, warmup int
	engines        string
}

func newBenchEngineCmd(env *Env) *cobra.Command {
	o := &benchEngineOptions{}
	cmd := &cobra.Command{
		Use:   "engine PROGRAM",
		Short: "Time container start and stop, compared with `runc run` of the same bundle",
		Long: `Time the engine from the call to the first 200 response over the bridge, with everything that production uses (network and
user namespaces, limited disk), alternating with "runc run" of the same program. PROGRAM is a static Linux program that
answers GET / with 200 soon after its start, such as examples/hello. The command needs no server and disturbs none. It
must run as root.`,
		Example: `  penstock bench engine examples/hello/bin/hello --cycles 100`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := env.settings(cmd)
			if err != nil {
				return err
			}
			o.program, o.engines = args[0], s.Engines
			return o.run(cmd.Context(), env)
		},
	}
	cmd.Flags().IntVar(&o.port, "port", 8080, "port that the program listens on")
	cmd.Flags().IntVar(&o.cycles, "cycles", 20, "number of timed cycles")
	cmd.Flags().IntVar(&o.warmup, "warmup", 2, "number of cycles before that, which are not timed")
	return cmd
}

func (o *benchEngineOptions) run(ctx context.Context, env *Env) error {
	program, err := filepath.Abs(o.program)
	if err != nil {
		return err
	}
	r, err := bench.Engine(ctx, bench.Options{
		Shim: filepath.Join(o.engines, "containerd-shim-runc-v2"), Runc: filepath.Join(o.engines, "runc"),
		Program: program, Port: o.port, Cycles: o.cycles, Warmup: o.warmup,
		Progress: func(done, of int) {
			if done%10 == 0 || done == of {
				fmt.Fprintf(env.Stderr, "cycle %d of %d\n", done, of)
			}
		},
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	err = env.show(r, func(w io.Writer) {
		row := func(what string, s bench.Stats) []string {
			ms := func(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond)) }
			return []string{what, ms(s.Min), ms(s.P50), ms(s.P95), ms(s.Max)}
		}
		table(w, "WHAT MIN P50 P95 MAX", [][]string{
			row("engine call to first 200", r.Engine), row("runc run to first 200", r.Runc),
			row("start of a created container", r.Start), row("teardown", r.Teardown),
		})
		fmt.Fprintf(w, "engine over runc: p50 %.2fx, p95 %.2fx\n", r.P50, r.P95)
	})
	if len(r.Left) > 0 {
		err = errors.Join(err, fmt.Errorf("left behind: %s", strings.Join(r.Left, ", ")))
	}
	return err
}
