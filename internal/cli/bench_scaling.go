package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"penstock/internal/admin/wire"
	"penstock/internal/bench/scaling"
)

// benchScalingOptions are those of all benchmarks of scaling.
type benchScalingOptions struct {
	running bool
	quick   bool
}

const benchScalingLong = `The command starts a server of its own with the fake runtime in a temporary folder, on free ports of
this machine, and removes it at the end. The fake runtime's replicas take no memory, and take as long to start as the benchmark asks.`

func (o *benchScalingOptions) bind(fs *pflag.FlagSet, quick string) {
	fs.BoolVar(&o.running, "running", false, "measure the running server, which must have been started with --runtime fake")
	fs.BoolVar(&o.quick, "quick", false, quick)
}

// measure runs a benchmark against a server, and prints its result.
func (o *benchScalingOptions) measure(cmd *cobra.Command, env *Env, run func(context.Context, scaling.Options) (benchResult, error)) (err error) {
	c, end, err := o.server(cmd, env)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	r, err := run(cmd.Context(), scaling.Options{
		Server: scalingServer{c, &scope{defaultSubscription, defaultGroup}}, Quick: o.quick, Progress: func(what string) { fmt.Fprintln(env.Stderr, what) },
	})
	if err != nil {
		return err
	}
	return env.show(r, r.WriteText)
}

// benchResult is printed as JSON, or as a table.
type benchResult interface{ WriteText(w io.Writer) }

// server returns the running server, or one that it starts, and what ends it.
func (o *benchScalingOptions) server(cmd *cobra.Command, env *Env) (c *Client, end func() error, err error) {
	if !o.running {
		return startBenchServer(cmd.Context(), env)
	}
	if c, err = env.client(cmd); err != nil {
		return nil, nil, err
	}
	status, err := c.status(cmd.Context())
	if err != nil {
		return nil, nil, err
	}
	if status.Runtime != "fake" {
		return nil, nil, fmt.Errorf("--running: want a server with the fake runtime, got one with %s", status.Runtime)
	}
	return c, func() error { return nil }, nil
}

// startBenchServer starts a server that ends with the benchmark.
func startBenchServer(ctx context.Context, env *Env) (_ *Client, end func() error, err error) {
	dir, err := os.MkdirTemp("", "penstock-bench-")
	if err != nil {
		return nil, nil, err
	}
	remove := func() error { return os.RemoveAll(dir) }
	data, logPath := filepath.Join(dir, "data"), filepath.Join(dir, "server.log")
	log, err := os.Create(logPath)
	if err != nil {
		return nil, nil, errors.Join(err, remove())
	}
	defer log.Close()
	server := exec.Command(env.Exe, "server", "--data="+data, "--run="+filepath.Join(dir, "run"), "--runtime=fake",
		"--http=127.0.0.1:0", "--https=127.0.0.1:0", "--arm=127.0.0.1:0", "--memory-reserve=0", "--disk-reserve=0", "--overcommit=1000", "--stop-limit=2s")
	server.Stdout, server.Stderr = log, log
	// The settings of another server must not reach this one.
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "PENSTOCK_") {
			server.Env = append(server.Env, v)
		}
	}
	if err := server.Start(); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("start server: %w", err), remove())
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }() // end waits for it
	c, err := env.awaitServer(ctx, data, ended, startLimit)
	if err != nil {
		env.quote(logPath, 0)
		_ = server.Process.Kill() // fails when it has ended
		return nil, nil, errors.Join(err, remove())
	}
	return c, func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		resp, err := c.do(ctx, http.MethodPost, wire.ShutdownPath, url.Values{"containers": {"stop"}}, nil)
		if err == nil {
			resp.Body.Close()
			c.http.CloseIdleConnections()
		} else {
			err = errors.Join(err, server.Process.Kill())
		}
		select {
		case <-ended:
		case <-ctx.Done():
			err = errors.Join(err, fmt.Errorf("the server (pid %d) did not end", server.Process.Pid), server.Process.Kill())
			<-ended
		}
		return errors.Join(err, remove())
	}, nil
}

// scalingServer is a server as the benchmarks of scaling see it.
type scalingServer struct {
	c *Client
	s *scope
}

func (s scalingServer) path(name string, more ...string) string {
	return s.s.path(append([]string{"containerApps", name}, more...)...)
}

// Deploy implements scaling.Server.
func (s scalingServer) Deploy(ctx context.Context, name string, body []byte) (string, error) {
	body, err := withDefaults(body, s.s.path("managedEnvironments", defaultEnvironment), false)
	if err != nil {
		return "", err
	}
	if _, _, err := s.c.call(ctx, http.MethodPut, s.path(name), version(), body); err != nil {
		return "", err
	}
	app, err := awaitReady(ctx, s.c, s.path(name))
	if err != nil {
		return "", err
	}
	status, err := s.c.status(ctx)
	if err != nil {
		return "", err
	}
	return app.url(status), nil
}

// Delete implements scaling.Server.
func (s scalingServer) Delete(ctx context.Context, name string) error {
	return s.c.change(ctx, http.MethodDelete, s.path(name), nil)
}

// Scale implements scaling.Server.
func (s scalingServer) Scale(ctx context.Context, name string) (out wire.Scale, err error) {
	doc, err := s.c.get(ctx, wire.ScalePath, url.Values{"app": {s.path(name)}})
	if err != nil {
		return out, err
	}
	return out, json.Unmarshal(doc, &out)
}

// allRecords is more than a benchmark leaves.
const allRecords = 100_000

// Events implements scaling.Server.
func (s scalingServer) Events(ctx context.Context, name string) (list []scaling.Event, err error) {
	q := (&logsOptions{tail: allRecords}).query()
	err = s.c.lines(ctx, s.path(name, "eventstream"), q, func(doc json.RawMessage) error {
		v, err := decode[eventView](doc)
		if err != nil {
			return err
		}
		at, err := time.Parse(eventTime, v.TimeStamp)
		if err != nil {
			return fmt.Errorf("read event: %w", err)
		}
		list = append(list, scaling.Event{At: at, Reason: v.Reason, Replica: v.Replica, Duration: time.Duration(v.DurationMs * float64(time.Millisecond))})
		return nil
	})
	return list, err
}

// eventTime is how events and log lines have their time.
const eventTime = "2006-01-02 15:04:05.999999999 -0700 MST"

// Requests implements scaling.Server.
func (s scalingServer) Requests(ctx context.Context, name string) (list []scaling.Request, err error) {
	q := (&logsOptions{tail: allRecords}).query()
	err = s.c.lines(ctx, s.path(name, "requeststream"), q, func(doc json.RawMessage) error {
		v, err := decode[struct {
			StartTime           time.Time
			HeldMs              float64
			StatusCode          int
			ResponseFlags       string
			ResponseCodeDetails string
			ReplicaName         string
		}](doc)
		if err != nil {
			return err
		}
		list = append(list, scaling.Request{
			Start: v.StartTime, Held: time.Duration(v.HeldMs * float64(time.Millisecond)), Status: v.StatusCode,
			Flags: v.ResponseFlags, Details: v.ResponseCodeDetails, Replica: v.ReplicaName,
		})
		return nil
	})
	return list, err
}
