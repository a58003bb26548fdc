package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"penstock/internal/admin/wire"
	"penstock/internal/build"
)

type buildOptions struct {
	name    string
	refresh bool
}

func newBuildCmd(env *Env) *cobra.Command {
	o := &buildOptions{}
	cmd := &cobra.Command{
		Use:   "build -t NAME[:TAG] DIR",
		Short: "Build an image from the image.yaml, Dockerfile or requirements.txt in DIR and push it to the server",
		Args:  cobra.ExactArgs(1),
		RunE:  func(cmd *cobra.Command, args []string) error { return o.run(cmd, env, args[0]) },
	}
	cmd.Flags().StringVarP(&o.name, "tag", "t", "", "name of the image, with or without a tag")
	cmd.Flags().BoolVar(&o.refresh, "refresh", false, "upgrade the base's packages to their newest versions")
	return cmd
}

func (o *buildOptions) run(cmd *cobra.Command, env *Env, dir string) error {
	if o.name == "" {
		return UsageError(fmt.Errorf("--tag: want the name of the image, got none"))
	}
	c, err := env.client(cmd)
	if err != nil {
		return err
	}
	r, err := o.build(cmd, env, c, dir)
	if err != nil {
		return err
	}
	return env.show(r, func(w io.Writer) { fmt.Fprintln(w, r.Digest) })
}

// build builds and pushes the image, and prints its progress.
func (o *buildOptions) build(cmd *cobra.Command, env *Env, c *Client, dir string) (build.Result, error) {
	epoch := time.Time{}
	if v := env.Getenv("SOURCE_DATE_EPOCH"); v != "" {
		seconds, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return build.Result{}, UsageError(fmt.Errorf("SOURCE_DATE_EPOCH: want seconds since 1970, got %q", v))
		}
		epoch = time.Unix(seconds, 0)
	}
	line := newBar(env.Stderr)
	p := &buildProgress{out: line, seen: map[string]time.Time{}}
	alive, end := context.WithCancel(cmd.Context())
	var wg sync.WaitGroup
	wg.Go(func() { line.pulse(alive, p.text) })
	r, err := build.Build(cmd.Context(), build.Options{
		Dir:      dir,
		Name:     o.name,
		Registry: build.Registry{URL: c.endpoint.String(), Transport: c},
		Epoch:    epoch,
		Refresh:  o.refresh,
		Progress: p.take,
		Pull: func(ctx context.Context, image string) error {
			_, _, err := env.pull(ctx, c, line, wire.PullRequest{Image: image})
			return err
		},
	})
	end()
	wg.Wait()
	if err != nil {
		return build.Result{}, err
	}
	for _, l := range r.Layers {
		how := "built in " + l.BuildTook.Round(time.Millisecond).String()
		if l.Cached {
			how = "unchanged"
		}
		where := "already on the server"
		if l.Pushed {
			where = "pushed in " + l.PushTook.Round(time.Millisecond).String()
		}
		fmt.Fprintf(env.Stderr, "  layer %-12s %10s  %s, %s\n", l.Name, bytesText(l.Size), how, where)
	}
	fmt.Fprintf(env.Stderr, "built %s (%s) in %s; %s sent\n", r.Name, bytesText(r.Size), r.Took.Round(time.Millisecond), bytesText(r.Moved))
	return r, nil
}

// RoundTrip makes the client usable as a registry's transport. It adds the token, but only for its own endpoint.
func (c *Client) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host == c.endpoint.Host && r.URL.Scheme == c.endpoint.Scheme {
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	return c.http.Transport.RoundTrip(r)
}

// buildProgress prints the start of each step that takes long enough to be noticed, and knows what is going on.
type buildProgress struct {
	out io.Writer

	mu   sync.Mutex
	seen map[string]time.Time // when a step began
	now  build.Progress
}

// worthSaying is the layer size from which a step takes about a second or more.
const worthSaying = 64 << 20

// stepOf names a step.
func stepOf(p build.Progress) string {
	if p.Stage == build.StageTool {
		return p.Layer
	}
	verb := cmp.Or(map[build.Stage]string{build.StageBuild: "packing", build.StagePush: "pushing"}[p.Stage], string(p.Stage))
	return verb + " layer " + p.Layer
}

func (p *buildProgress) take(now build.Progress) {
	key := stepOf(now)
	p.mu.Lock()
	_, seen := p.seen[key]
	if !seen {
		p.seen[key] = time.Now()
	}
	p.now = now
	p.mu.Unlock()
	switch {
	case seen:
	case now.Stage == build.StageTool:
		fmt.Fprintln(p.out, key)
	case now.Total >= worthSaying:
		fmt.Fprintf(p.out, "%s (%s)\n", key, bytesText(now.Total))
	}
}

// text says what is going on, and for how long.
func (p *buildProgress) text(at time.Time) string {
	p.mu.Lock()
	now, began := p.now, p.seen[stepOf(p.now)]
	p.mu.Unlock()
	took := at.Sub(began).Round(time.Second)
	switch {
	case began.IsZero():
		return ""
	case now.Stage == build.StageTool:
		return fmt.Sprintf("  %s  %s", took, cmp.Or(now.Detail, now.Layer))
	}
	return fmt.Sprintf("  %s  %s, %s of %s", took, stepOf(now), bytesText(now.Done), bytesText(now.Total))
}
