package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"penstock/internal/bench/scaling"
)

func newBenchStepCmd(env *Env) *cobra.Command {
	o := &benchScalingOptions{}
	cmd := &cobra.Command{
		Use:   "step",
		Short: "Raise the rate of requests at once, and compare replicas with how many are needed",
		Long: `Raise the rate of requests to 2, 5 and 20 times at once, with replicas that take 0.1, 5 and 30 s to start and with both behaviours: how
many replicas there were at most beside how many are needed, how long it took until enough were ordered and ready, and how long
requests waited. Takes about seven minutes.

` + benchScalingLong,
		Example: `  penstock bench step
  penstock bench step --quick`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.measure(cmd, env, func(ctx context.Context, s scaling.Options) (benchResult, error) {
				opts := scaling.StepOptions{Options: s, Factors: []int{2, 5, 20}, Starts: []time.Duration{100 * time.Millisecond, 5 * time.Second, 30 * time.Second}}
				if o.quick {
					opts.Factors, opts.Starts = []int{5}, []time.Duration{100 * time.Millisecond}
				}
				return scaling.RunStep(ctx, opts)
			})
		},
	}
	o.bind(cmd.Flags(), "one step of 5 times with replicas that start in 0.1 s, and only a few seconds of it")
	return cmd
}
