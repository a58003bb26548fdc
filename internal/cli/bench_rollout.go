package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"penstock/internal/bench/rollout"
)

type benchRolloutOptions struct {
	benchHost
	requests int64
	quick    bool
	// what happens meanwhile
	switches, scaleIns, kills, restarts int
}

// With --quick everything happens a few times only.
const (
	quickRolloutRequests = 10_000
	quickSwitches        = 3
	quickScaleIns        = 3
	quickKills           = 3
	quickRestarts        = 1
)

func newBenchRolloutCmd(env *Env) *cobra.Command {
	o := &benchRolloutOptions{benchHost: benchHost{port: 8080}}
	cmd := &cobra.Command{
		Use:   "rollout PROGRAM",
		Short: "Send requests while revisions, replicas and roles change, and say which failed and why",
		Long: `Send requests to an app with real containers while its revision is switched, its replicas are scaled in and killed, and the server's
roles are killed and replaced, in an order that is the same in each run. No request may fail, except for those that were in hand of what
was killed and must not be sent again: to a replica, those whose method is not idempotent or whose response had begun; to a killed
ingress, all. Any other failure is lost, and the exit code is 1. PROGRAM is examples/hello. Starts a server of its own in a temporary
folder and removes it. Root only.`,
		Example: `  penstock bench rollout examples/hello/bin/hello
  penstock bench rollout examples/hello/bin/hello --quick`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.requests < 0 {
				return UsageError(fmt.Errorf("--requests: want 0 or more, got %d", o.requests))
			}
			for flag, n := range map[string]int{"switches": o.switches, "scale-ins": o.scaleIns, "kills": o.kills, "restarts": o.restarts} {
				if n < 0 || n > maxChanges {
					return UsageError(fmt.Errorf("--%s: want 0 to %d, got %d", flag, maxChanges, n))
				}
			}
			if os.Geteuid() != 0 {
				return errors.New("containers need root")
			}
			if err := o.read(cmd, env, args[0]); err != nil {
				return err
			}
			if o.quick {
				o.requests, o.switches, o.scaleIns, o.kills, o.restarts = quickRolloutRequests, quickSwitches, quickScaleIns, quickKills, quickRestarts
			}
			return o.run(cmd.Context(), env)
		},
	}
	f := cmd.Flags()
	f.Int64Var(&o.requests, "requests", 1_000_000, "requests to send at least")
	f.IntVar(&o.switches, "switches", 100, "revision switches")
	f.IntVar(&o.scaleIns, "scale-ins", 50, "replicas that are scaled in, at least")
	f.IntVar(&o.kills, "kills", 20, "kills of replicas")
	f.IntVar(&o.restarts, "restarts", 5, "kills of control, kills of the ingress, and hand-overs of both roles")
	f.BoolVar(&o.quick, "quick", false, fmt.Sprintf("%d requests, %d switches, %d scale-ins, %d kills and %d restart of each kind",
		quickRolloutRequests, quickSwitches, quickScaleIns, quickKills, quickRestarts))
	return cmd
}

// maxChanges bounds what one run may do of each kind.
const maxChanges = 10_000

const benchRolloutImage = "bench-rollout:1"

func (o *benchRolloutOptions) run(ctx context.Context, env *Env) (err error) {
	stop, err := o.ownServer(ctx, env)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	c, err := clientOf(o.data)
	if err != nil {
		return err
	}
	if err := o.image(ctx, c, benchRolloutImage); err != nil {
		return err
	}
	status, err := c.status(ctx)
	if err != nil {
		return err
	}
	r, err := rollout.Run(ctx, rollout.Options{
		Server:    rolloutServer{scalingServer{c, &scope{defaultSubscription, defaultGroup}}},
		Processes: rollout.Processes{Instance: status.Instance},
		Address:   net.JoinHostPort("127.0.0.1", strconv.Itoa(status.HTTPPort)), Image: benchRolloutImage,
		Progress: func(what string) { fmt.Fprintln(env.Stderr, what) },
		Requests: o.requests, Switches: o.switches, ScaleIns: o.scaleIns, Kills: o.kills, Restarts: o.restarts,
	})
	if err != nil {
		return err
	}
	if err = env.show(r, r.WriteText); err == nil && r.Lost > 0 {
		err = fmt.Errorf("%d requests were lost", r.Lost)
	}
	return err
}

// rolloutServer is a server as the benchmark of rollouts sees it.
type rolloutServer struct{ scalingServer }

// Alive implements rollout.Server.
func (s rolloutServer) Alive(ctx context.Context) error {
	_, err := s.c.status(ctx)
	return err
}

// ScaledIn implements rollout.Server.
func (s rolloutServer) ScaledIn(ctx context.Context, name string) (n int, err error) {
	list, err := s.Events(ctx, name)
	for _, e := range list {
		if e.Reason == "ReplicaScaledIn" {
			n++
		}
	}
	return n, err
}

// Broken implements rollout.Server.
func (s rolloutServer) Broken(ctx context.Context, name, replica string) (n int, err error) {
	q := (&logsOptions{tail: allRecords}).query()
	q.Set("replica", replica)
	err = s.c.lines(ctx, s.path(name, "requeststream"), q, func(doc json.RawMessage) error {
		v, err := decode[struct{ Method, ResponseFlags, ResponseCodeDetails string }](doc)
		if err != nil {
			return err
		}
		ended := strings.Contains(v.ResponseFlags, "UC")
		begun := strings.HasPrefix(v.ResponseCodeDetails, "upstream_reset_after_response_started")
		if ended && (begun || v.Method != http.MethodGet) {
			n++
		}
		return nil
	})
	return n, err
}
