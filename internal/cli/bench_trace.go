package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"penstock/internal/bench/scaling"
	"penstock/internal/load"
)

type benchTraceOptions struct {
	benchScalingOptions
	speed int
	start time.Duration
}

// quickTraceRows are enough for a few replicas.
const quickTraceRows = 100

func newBenchTraceCmd(env *Env) *cobra.Command {
	o := &benchTraceOptions{}
	cmd := &cobra.Command{
		Use:   "trace FILE",
		Short: "Replay a trace of requests against an app at zero, and compare with the simulator",
		Long: `Replay a trace against an app at zero, and play the same trace in the simulator, which is given the start times that were measured: what
was lost, how long requests waited, replica-seconds and cold starts, live and simulated. Every duration of the trace and of the rules is
divided by --speed: the cool-down period and the scale-in window of 60 s, and the service times. Start times are not. A request takes
ContextTokens/4000 + GeneratedTokens/20 seconds.

` + benchScalingLong,
		Example: `  penstock bench trace internal/load/testdata/AzureLLMInferenceTrace_code.csv`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.speed < 1 || o.speed > 60 {
				return UsageError(fmt.Errorf("--speed: want 1 to 60, got %d", o.speed))
			}
			if err := checkStart(o.start); err != nil {
				return err
			}
			trace, err := readTrace(args[0])
			if err != nil {
				return err
			}
			if o.quick && len(trace) > quickTraceRows {
				trace = trace[:quickTraceRows]
			}
			return o.measure(cmd, env, func(ctx context.Context, s scaling.Options) (benchResult, error) {
				return scaling.RunTrace(ctx, scaling.TraceOptions{Options: s, Name: filepath.Base(args[0]), Trace: trace, Speed: o.speed, Start: o.start})
			})
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.speed, "speed", 20, "by what durations of the trace and the rules are divided")
	f.DurationVar(&o.start, "start", 500*time.Millisecond, "how long a replica takes to start")
	o.bind(f, fmt.Sprintf("only the first %d requests", quickTraceRows))
	return cmd
}

func readTrace(path string) ([]load.Arrival, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	trace, err := load.ReadTrace(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return trace, nil
}
