package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"penstock/internal/bench/scaling"
)

type benchTrickleOptions struct {
	benchScalingOptions
	speed  int
	window time.Duration
}

// With --quick the trickle takes 15 s, and one replica is left after a few seconds.
const (
	quickTrickleSpeed  = 120
	quickTrickleWindow = time.Second
)

func newBenchTrickleCmd(env *Env) *cobra.Command {
	o := &benchTrickleOptions{}
	cmd := &cobra.Command{
		Use:   "trickle",
		Short: "Send a request a minute, and let all clients but one leave",
		Long: `Send a request of 50 ms each minute for 30 minutes to an app at zero with a cool-down period of 5 minutes, all divided by --speed: one
replica must start, and no more. Then make ten replicas busy and let all clients but one leave: one replica must be left after the
scale-in window and 2 s.

` + benchScalingLong,
		Example: `  penstock bench trickle
  penstock bench trickle --speed 1`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.speed < 1 || o.speed > quickTrickleSpeed {
				return UsageError(fmt.Errorf("--speed: want 1 to %d, got %d", quickTrickleSpeed, o.speed))
			}
			if o.quick {
				o.speed, o.window = quickTrickleSpeed, quickTrickleWindow
			}
			return o.measure(cmd, env, func(ctx context.Context, s scaling.Options) (benchResult, error) {
				return scaling.RunTrickle(ctx, scaling.TrickleOptions{Options: s, Speed: o.speed, Window: o.window})
			})
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.speed, "speed", 20, "by what the durations of the trickle and the cool-down period are divided")
	f.DurationVar(&o.window, "scale-in-window", time.Minute, "scale-in window of the ten replicas")
	o.bind(f, fmt.Sprintf("at a speed of %d and with a scale-in window of %s", quickTrickleSpeed, quickTrickleWindow))
	return cmd
}
