package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"penstock/internal/admin/wire"
	"penstock/internal/bench"
)

type benchWakeOptions struct {
	scope
	benchHost
	cycles, warmup int
	server         bool
}

func newBenchWakeCmd(env *Env) *cobra.Command {
	o := &benchWakeOptions{}
	cmd := &cobra.Command{
		Use:   "wake PROGRAM",
		Short: "Time requests to apps at zero beside `runc run` of the same program",
		Long: `Time requests that wake an app, from the first byte into the ingress to the last byte of the response, for each kind of
standby (created, paused, none), and "runc run" of the same program until its first response, one after the other. PROGRAM is a
static Linux program that responds to GET / on a port with 200 soon after its start, such as examples/hello. Starts a server of its
own in a temporary folder and removes it, or uses the one of the data folder with --server. Root only.`,
		Example: `  penstock bench wake examples/hello/bin/hello --cycles 50`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.read(cmd, env, args[0]); err != nil {
				return err
			}
			return o.run(cmd.Context(), env)
		},
	}
	o.bind(cmd.Flags())
	cmd.Flags().IntVar(&o.port, "port", 8080, "port that the program answers on")
	cmd.Flags().IntVar(&o.cycles, "cycles", 200, "wakes of each kind that are timed")
	cmd.Flags().IntVar(&o.warmup, "warmup", 2, "wakes before that are not")
	cmd.Flags().BoolVar(&o.server, "server", false, "use the server that runs on the data folder")
	return cmd
}

func (o *benchWakeOptions) run(ctx context.Context, env *Env) (err error) {
	if !o.server {
		stop, err := o.ownServer(ctx, env)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	c, err := clientOf(o.data)
	if err != nil {
		return err
	}
	if err := o.image(ctx, c, benchWakeImage); err != nil {
		return err
	}
	status, err := c.status(ctx)
	if err != nil {
		return err
	}
	var apps []bench.WakeApp
	for _, standby := range []string{"created", "paused", "none"} {
		name := "bench-wake-" + standby
		path := o.path("containerApps", name)
		if err := c.change(ctx, http.MethodPut, path, o.app(standby)); err != nil {
			return fmt.Errorf("app %s: %w", name, err)
		}
		defer func() {
			if e := c.change(context.WithoutCancel(ctx), http.MethodDelete, path, nil); e != nil {
				err = errors.Join(err, fmt.Errorf("delete app %s: %w", name, e))
			}
		}()
		a, err := awaitReady(ctx, c, path)
		if err != nil {
			return fmt.Errorf("app %s: %w", name, err)
		}
		apps = append(apps, bench.WakeApp{
			Standby: standby, Name: name, Host: a.Properties.Configuration.Ingress.FQDN,
			Ingress: net.JoinHostPort("127.0.0.1", strconv.Itoa(status.HTTPPort)),
		})
	}
	r, err := bench.Wake(ctx, bench.WakeOptions{
		Options: bench.Options{
			Shim: filepath.Join(o.engines, "containerd-shim-runc-v2"), Runc: filepath.Join(o.engines, "runc"),
			Program: o.program, Port: o.port, Cycles: o.cycles, Warmup: o.warmup,
			Progress: func(done, of int) {
				if done%10 == 0 || done == of {
					fmt.Fprintf(env.Stderr, "wake %d of %d\n", done, of)
				}
			},
			Log: slog.New(slog.DiscardHandler),
		},
		Apps:   apps,
		Asleep: func(ctx context.Context, app bench.WakeApp) error { return o.asleep(ctx, c, app) },
	})
	if err != nil {
		return err
	}
	err = env.show(r, func(w io.Writer) { printWakes(w, r) })
	if len(r.Left) > 0 {
		err = errors.Join(err, fmt.Errorf("left behind: %s", strings.Join(r.Left, ", ")))
	}
	return err
}

func printWakes(w io.Writer, r bench.WakeResult) {
	ms := func(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond)) }
	row := func(what string, s bench.Stats, ratios ...float64) []string {
		cells := []string{what, strconv.Itoa(s.Count), ms(s.Min), ms(s.P50), ms(s.P95), ms(s.P99), ms(s.Max)}
		for _, ratio := range ratios {
			cells = append(cells, fmt.Sprintf("%.2fx", ratio))
		}
		return cells
	}
	rows := [][]string{append(row("runc run", r.Runc), "", "", "")}
	for _, wake := range r.Wakes {
		rows = append(rows, row(wake.Standby, wake.Stats, wake.RatioP50, wake.RatioP95, wake.RatioP99))
	}
	table(w, "STANDBY WAKES MIN P50 P95 P99 MAX P50/RUNC P95/RUNC P99/RUNC", rows)
}

const benchWakeImage = "bench-wake:1"

// app is the body of an app that goes to zero as soon as it may.
func (o *benchWakeOptions) app(standby string) []byte {
	type object = map[string]any
	body, err := json.Marshal(object{
		"location": "Local",
		"tags":     object{"penstock.standby": standby},
		"properties": object{
			"environmentId": o.path("managedEnvironments", defaultEnvironment),
			"configuration": object{"ingress": object{"external": true, "targetPort": o.port, "allowInsecure": true}},
			"template": object{
				"containers": []object{{
					"name": "main", "image": benchWakeImage, "resources": object{"cpu": 2, "memory": "4Gi"},
					"env":    []object{{"name": "PORT", "value": strconv.Itoa(o.port)}},
					"probes": []object{{"type": "Readiness", "httpGet": object{"path": "/", "port": o.port}}},
				}},
				"scale": object{"minReplicas": 0, "maxReplicas": 1, "cooldownPeriod": 2, "pollingInterval": 1},
			},
		},
	})
	if err != nil {
		panic(err) // of strings and numbers
	}
	return body
}

// asleep waits until an app has no replica, and a standby that is ready if it is to have one.
func (o *benchWakeOptions) asleep(ctx context.Context, c *Client, app bench.WakeApp) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Minute, errors.New("it does not go to zero"))
	defer cancel()
	return poll(ctx, func() (bool, error) {
		doc, err := c.get(ctx, wire.StandbysPath, nil)
		if err != nil {
			return false, err
		}
		list, err := decode[wire.List[wire.Standby]](doc)
		if err != nil {
			return false, err
		}
		prefix := o.path("containerApps", app.Name, "revisions") + "/"
		kind := "none"
		for _, s := range list.Value {
			if s.Ready && strings.HasPrefix(strings.ToLower(s.Revision), strings.ToLower(prefix)) {
				kind = s.Kind
			}
		}
		if app.Standby == "paused" && kind == "created" {
			// A replica that was not ready at its end is not frozen. Only another wake makes one that is.
			_, err := app.Wake(ctx)
			return false, err
		}
		if app.Standby != "none" && kind != app.Standby {
			return false, nil
		}
		doc, err = c.get(ctx, wire.UsagePath, nil)
		if err != nil {
			return false, err
		}
		usage, err := decode[wire.Usage](doc)
		if err != nil {
			return false, err
		}
		for _, a := range usage.Apps {
			if a.Name == app.Name && len(a.Replicas) > 0 {
				return false, nil
			}
		}
		return true, nil
	})
}
