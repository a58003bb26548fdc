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
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"penstock/internal/admin/wire"
	"penstock/internal/bench"
	"penstock/internal/build"
)

type benchWakeOptions struct {
	scope
	program        string
	port           int
	cycles, warmup int
	server         bool
	engines, data  string
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
			s, err := env.settings(cmd)
			if err != nil {
				return err
			}
			o.engines, o.data = s.Engines, s.Data
			if o.program, err = filepath.Abs(args[0]); err != nil {
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
	if err := o.image(ctx, c); err != nil {
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

// ownServer starts a server in a temporary folder, on ports of its own.
func (o *benchWakeOptions) ownServer(ctx context.Context, env *Env) (stop func() error, err error) {
	dir, err := os.MkdirTemp("", "penstock-wake-")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // containers' users walk through it
		return nil, err
	}
	o.data = filepath.Join(dir, "data")
	run := func(ctx context.Context, command string) error {
		cmd := exec.CommandContext(ctx, env.Exe, command)
		cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "PENSTOCK_") })
		cmd.Env = append(cmd.Env, "PENSTOCK_DATA="+o.data, "PENSTOCK_ENGINES="+o.engines,
			"PENSTOCK_HTTP=127.0.0.1:0", "PENSTOCK_HTTPS=127.0.0.1:0", "PENSTOCK_ARM=127.0.0.1:0")
		cmd.Stderr = env.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("penstock %s: %w", command, err)
		}
		return nil
	}
	stop = func() error {
		if err := run(context.WithoutCancel(ctx), "down"); err != nil {
			return err // and keep the folder with its log
		}
		return os.RemoveAll(dir)
	}
	if err := run(ctx, "up"); err != nil {
		return nil, errors.Join(err, stop())
	}
	return stop, nil
}

const benchWakeImage = "bench-wake:1"

// image builds the image of the program on the server.
func (o *benchWakeOptions) image(ctx context.Context, c *Client) error {
	dir, err := os.MkdirTemp("", "penstock-wake-image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	program, err := os.ReadFile(o.program)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "program"), program, 0o755); err != nil {
		return err
	}
	file := fmt.Sprintf("layers: [{name: program, from: program, to: /program}]\nentrypoint: [/program]\nports: [%d]\n", o.port)
	if err := os.WriteFile(filepath.Join(dir, "image.yaml"), []byte(file), 0o644); err != nil {
		return err
	}
	_, err = build.Build(ctx, build.Options{Dir: dir, Name: benchWakeImage, Registry: build.Registry{URL: c.endpoint.String(), Transport: c}})
	return err
}

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
		ready := app.Standby == "none" || slices.ContainsFunc(list.Value, func(s wire.Standby) bool {
			return s.Ready && s.Kind == app.Standby && strings.HasPrefix(strings.ToLower(s.Revision), strings.ToLower(prefix))
		})
		if !ready {
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
