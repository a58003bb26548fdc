package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"penstock/internal/bench/proxy"
)

type benchProxyOptions struct {
	proxy.Options
	transfer string
	svg      string
}

func newBenchProxyCmd(env *Env) *cobra.Command {
	o := &benchProxyOptions{}
	cmd := &cobra.Command{
		Use:   "proxy",
		Short: "Compare the ingress with nginx, Go's ReverseProxy and Caddy",
		Long: `Start the ingress role as the server does, and every other proxy that is installed, in front of one replica. Measure in
alternating rounds: processor time per request, requests per second and latency with 1 KiB responses, the delay of events,
the memory of open streams and idle connections, and large bodies. Every proxy logs every request. The command needs no
server and disturbs none; everything runs on loopback and ends with the command.

nginx (Debian: apt-get install nginx-core) and Caddy (go install github.com/caddyserver/caddy/v2/cmd/caddy@latest) are
looked up on the PATH. If one is missing, its rows are left out and the command says so.`,
		Example: `  penstock bench proxy
  penstock bench proxy --rounds 9 --svg proxy.svg -o json > proxy.json
  penstock bench proxy --only penstock,nginx --streams 0 --idle 0 --transfer 0`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), env) },
	}
	f := cmd.Flags()
	f.StringSliceVar(&o.Only, "only", nil, "measure only these: penstock, nginx, ReverseProxy, caddy")
	f.IntVar(&o.Rounds, "rounds", 5, "number of rounds of small requests")
	f.DurationVar(&o.Round, "round", 3*time.Second, "time for each proxy in a round")
	f.IntVar(&o.Connections, "connections", 64, "connections that send requests at the same time")
	f.IntVar(&o.Streams, "streams", 1000, "event streams to hold open at the same time; 0 for none")
	f.IntVar(&o.Idle, "idle", 10000, "idle connections to hold open; 0 for none")
	f.StringVar(&o.transfer, "transfer", "5GB", "size of the body to upload and download, such as 500MB; 0 for none")
	f.StringVar(&o.svg, "svg", "", "`file` to write an SVG chart to")
	return cmd
}

func (o *benchProxyOptions) run(ctx context.Context, env *Env) error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if o.Rounds < 1 || o.Rounds > 1000 {
		fault("--rounds: want 1 to 1000, got %d", o.Rounds)
	}
	if o.Round < 200*time.Millisecond || o.Round > time.Hour {
		fault("--round: want 200ms to 1h, got %s", o.Round)
	}
	for name, n := range map[string]int{"connections": o.Connections - 1, "streams": o.Streams, "idle": o.Idle} {
		if n < 0 || n > 100_000 {
			fault("--%s: out of range, want at most 100000, got %d", name, n)
		}
	}
	var err error
	if o.Transfer, err = parseSize(o.transfer); err != nil {
		fault("--transfer: %w", err)
	}
	if len(faults) > 0 {
		return UsageError(errors.Join(faults...))
	}
	o.Exe, o.Version, o.GoVersion, o.Ingress = env.Exe, env.Version, runtime.Version(), env.Ingress
	o.Progress = func(what string) { fmt.Fprintln(env.Stderr, what) }
	r, err := proxy.Run(ctx, o.Options)
	if err != nil {
		return err
	}
	if o.svg != "" {
		if err := writePicture(o.svg, r); err != nil {
			return fmt.Errorf("--svg: %w", err)
		}
	}
	return env.show(r, r.WriteText)
}

func writePicture(path string, r *proxy.Result) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return r.WriteSVG(f)
}

// newBenchPartCmd returns the hidden command that a benchmark runs as a child process.
func newBenchPartCmd(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "part NAME REPLICA", Short: "A child process of a benchmark", Hidden: true, Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return proxy.RunPart(cmd.Context(), args[0], args[1], env.Stdin, env.Stdout)
		},
	}
}
