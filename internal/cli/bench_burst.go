package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"penstock/internal/bench/scaling"
)

type benchBurstOptions struct {
	benchScalingOptions
	requests []int
	start    time.Duration
}

func newBenchBurstCmd(env *Env) *cobra.Command {
	o := &benchBurstOptions{}
	cmd := &cobra.Command{
		Use:   "burst",
		Short: "Send bursts of requests to an app at zero",
		Long: `Send bursts of requests, each within a second, to an app at zero, with both behaviours: what was answered, refused and lost, how long
it took until enough replicas were ordered, and how soon the places of a replica that is ready are filled.

` + benchScalingLong,
		Example: `  penstock bench burst
  penstock bench burst --requests 1200 --start 5s -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, n := range o.requests {
				if n < 1 || n > 10_000 {
					return UsageError(fmt.Errorf("--requests: want 1 to 10000, got %d", n))
				}
			}
			if err := checkStart(o.start); err != nil {
				return err
			}
			if o.quick && !cmd.Flags().Changed("requests") {
				o.requests = []int{100}
			}
			return o.measure(cmd, env, func(ctx context.Context, s scaling.Options) (benchResult, error) {
				return scaling.RunBurst(ctx, scaling.BurstOptions{Options: s, Requests: o.requests, Start: o.start})
			})
		},
	}
	f := cmd.Flags()
	f.IntSliceVar(&o.requests, "requests", []int{1000, 1200}, "number of requests of each burst")
	f.DurationVar(&o.start, "start", 2*time.Second, "how long a replica takes to start")
	o.bind(f, "one burst of 100 requests with the fast behaviour")
	return cmd
}

func checkStart(d time.Duration) error {
	if d < 0 || d > 5*time.Minute {
		return UsageError(fmt.Errorf("--start: want 0s to 5m, got %s", d))
	}
	return nil
}
