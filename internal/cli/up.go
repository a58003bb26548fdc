package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"penstock/internal/arm/app"
)

type upOptions struct {
	scope
	environment string
	file        string
	timeout     time.Duration
}

func newUpCmd(env *Env) *cobra.Command {
	o := &upOptions{}
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start a server in the background if none runs, and with -f serve an app",
		Long: `Start a server on the data folder if none runs there. With -f, create or update the app of a Container Apps YAML
file and wait until it is ready: the steps go to stderr, the URL to stdout.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), cmd, env) },
	}
	o.bind(cmd.Flags())
	cmd.Flags().StringVar(&o.environment, "environment", defaultEnvironment, "environment of an app whose manifest names none")
	cmd.Flags().StringVarP(&o.file, "file", "f", "", "Container Apps YAML of an app; - reads stdin")
	cmd.Flags().DurationVar(&o.timeout, "timeout", 10*time.Minute, "how long to wait until the app is ready")
	env.Server(cmd.Flags())
	return cmd
}

func (o *upOptions) run(ctx context.Context, cmd *cobra.Command, env *Env) error {
	var name string
	var body []byte
	if o.file != "" {
		// A manifest that cannot be read is found before anything is started.
		var err error
		if name, body, err = o.manifest(env); err != nil {
			return err
		}
	}
	c, err := o.server(ctx, cmd, env)
	if err != nil {
		return err
	}
	if o.file == "" {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, fmt.Errorf("gave up after %s", o.timeout))
	defer cancel()
	return o.apply(ctx, env, c, name, body)
}

// server returns a client of the server that the variables name, or of the one of the data folder, which it starts.
func (o *upOptions) server(ctx context.Context, cmd *cobra.Command, env *Env) (*Client, error) {
	if env.Getenv("PENSTOCK_ENDPOINT") != "" {
		return env.client(cmd)
	}
	s, err := env.settings(cmd)
	if err != nil {
		return nil, err
	}
	return env.ensureServer(ctx, cmd, s.Data)
}

// maxManifest bounds what is read of a manifest; the server takes no more either.
const maxManifest = 4 << 20

// manifest reads the file into the body of a PUT.
func (o *upOptions) manifest(env *Env) (name string, body []byte, err error) {
	b, err := readManifest(env, o.file)
	if err != nil {
		return "", nil, err
	}
	name, body, err = app.ParseYAML(b)
	if err != nil {
		return "", nil, fmt.Errorf("manifest %s: %w", o.file, err)
	}
	if name == "" {
		return "", nil, fmt.Errorf("manifest %s: name: want the name of the app, got none", o.file)
	}
	body, err = withDefaults(body, o.path("managedEnvironments", o.environment))
	return name, body, err
}

// readManifest reads a file; - is stdin.
func readManifest(env *Env, file string) ([]byte, error) {
	in := env.Stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("manifest: %w", err)
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxManifest))
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	return b, nil
}

// withDefaults fills in the environment and the location where the manifest of an app or a job names none, as az does,
// and leaves the rest as it is written.
func withDefaults(body []byte, environment string) ([]byte, error) {
	doc := map[string]json.RawMessage{}
	if err := json.Unmarshal(body, &doc); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	if key := fold(doc, "location"); len(doc[key]) == 0 {
		doc[key] = json.RawMessage(`"Local"`)
	}
	properties := map[string]json.RawMessage{}
	key := fold(doc, "properties")
	if raw := doc[key]; len(raw) > 0 && !bytes.Equal(raw, []byte("null")) {
		if err := json.Unmarshal(raw, &properties); err != nil {
			return json.Marshal(doc) // not an object: the server says so, with its place
		}
	}
	for _, name := range []string{"environmentId", "managedEnvironmentId"} {
		var id string
		if raw, ok := properties[fold(properties, name)]; ok && json.Unmarshal(raw, &id) == nil && id != "" {
			return json.Marshal(doc)
		}
	}
	id, err := json.Marshal(environment)
	if err != nil {
		return nil, err
	}
	properties[fold(properties, "environmentId")] = id
	if doc[key], err = json.Marshal(properties); err != nil {
		return nil, err
	}
	return json.Marshal(doc)
}

// fold is the key as the document spells it: ARM's names match in any case of letters.
func fold(doc map[string]json.RawMessage, name string) string {
	for k := range doc {
		if strings.EqualFold(k, name) {
			return k
		}
	}
	return name
}

// apply writes the app and shows the way until it is ready.
func (o *upOptions) apply(ctx context.Context, env *Env, c *Client, name string, body []byte) error {
	path := o.path("containerApps", name)
	began := time.Now()
	_, answer, err := c.call(ctx, http.MethodPut, path, version(), body)
	if err != nil {
		return err
	}
	var written struct {
		SystemData struct {
			LastModifiedAt time.Time `json:"lastModifiedAt"`
		} `json:"systemData"`
	}
	if err := json.Unmarshal(answer, &written); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	fmt.Fprintf(env.Stderr, "app %s\n", name)

	follow, unfollow := context.WithCancel(ctx)
	var wg sync.WaitGroup
	line := newBar(env.Stderr)
	steps := &steps{out: line, began: began, since: written.SystemData.LastModifiedAt}
	wg.Go(func() {
		q := (&logsOptions{follow: true, tail: 100}).query()
		if err := c.lines(follow, path+"/eventstream", q, steps.take); err != nil && follow.Err() == nil {
			steps.say("the steps cannot be followed: " + err.Error())
		}
	})
	wg.Go(func() { followPulls(follow, c, line) })
	a, err := awaitReady(ctx, c, path)
	// The last event is on its way when the app is ready.
	linger, stop := context.WithTimeout(ctx, 100*time.Millisecond)
	<-linger.Done()
	stop()
	unfollow()
	wg.Wait()
	if err != nil {
		if ctx.Err() != nil && steps.trouble != "" {
			err = fmt.Errorf("%w; last: %s", err, steps.trouble)
		}
		o.lastLines(env, c, path)
		return hint(fmt.Errorf("app %s is not ready: %w", name, err), "penstock app events %s\npenstock app logs %s", name, name)
	}
	fmt.Fprintf(env.Stderr, "ready after %s\n", time.Since(began).Round(time.Millisecond))
	status, err := c.status(ctx)
	if err != nil {
		return err
	}
	doc, err := c.get(ctx, path, version())
	if err != nil {
		return err
	}
	for _, u := range a.additional(status) {
		fmt.Fprintf(env.Stderr, "additional port %s\n", u)
	}
	return env.show(doc, func(w io.Writer) {
		if u := a.url(status); u != "" {
			fmt.Fprintln(w, u)
		}
	})
}

// awaitReady waits until the newest revision of the app is ready, or until it is certain that it will not be.
func awaitReady(ctx context.Context, c *Client, path string) (*appView, error) {
	var a *appView
	err := poll(ctx, func() (bool, error) {
		doc, err := c.get(ctx, path, version())
		if err != nil {
			return false, err
		}
		if a, err = decode[appView](doc); err != nil {
			return false, err
		}
		p := &a.Properties
		switch p.ProvisioningState {
		case "Failed", "Canceled":
			return false, errors.New(cmp.Or(p.ProvisioningError, "provisioning ended as "+p.ProvisioningState))
		case "Succeeded":
			if p.LatestRevisionName != "" && p.LatestRevisionName == p.LatestReadyRevisionName {
				return true, nil
			}
		}
		if p.LatestRevisionName == "" {
			return false, nil
		}
		doc, err = c.get(ctx, path+"/revisions/"+p.LatestRevisionName, version())
		if err != nil {
			return false, err
		}
		r, err := decode[revisionView](doc)
		if err != nil {
			return false, err
		}
		if s := r.Properties.RunningState; s == "ActivationFailed" || s == "Failed" {
			return false, errors.New(cmp.Or(r.Properties.RunningStateDetails, r.Properties.ProvisioningError, "revision "+r.Name+" ended as "+s))
		}
		return false, nil
	})
	return a, err
}

// lastLines prints what the containers of an app printed last.
func (o *upOptions) lastLines(env *Env, c *Client, path string) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	first := true
	err := c.lines(ctx, path+"/logstream", (&logsOptions{tail: 15}).query(), func(doc json.RawMessage) error {
		l, err := decode[lineView](doc)
		if err != nil {
			return err
		}
		if first {
			fmt.Fprintln(env.Stderr, "last lines of its console:")
			first = false
		}
		fmt.Fprintf(env.Stderr, "  %s %s  %s\n", clock(l.TimeStamp), tail(l.Replica), l.Log)
		return nil
	})
	if err != nil {
		fmt.Fprintln(env.Stderr, "its console cannot be read:", err)
	}
}

// steps prints the events of one change as they come.
type steps struct {
	out   io.Writer
	began time.Time
	since time.Time // events before it belong to an earlier change

	last    string // the event before
	trouble string // the last warning
}

func (s *steps) take(doc json.RawMessage) error {
	e, err := decode[eventView](doc)
	if err != nil {
		return err
	}
	if at, err := time.Parse(time.RFC3339Nano, e.TimeStamp); err == nil && at.Before(s.since) {
		return nil
	}
	if e.Type == "Warning" {
		s.trouble = e.Msg
	}
	what := e.Reason + " " + e.Msg
	if what == s.last {
		return nil // a probe fails the same way every second
	}
	s.last = what
	took := ""
	if e.DurationMs > 0 {
		took = time.Duration(e.DurationMs * float64(time.Millisecond)).Round(time.Millisecond).String()
	}
	mark := " "
	if e.Type == "Warning" {
		mark = "!"
	}
	fmt.Fprintf(s.out, "%s %-20s %8s  %s\n", mark, e.Reason, took, e.Msg)
	return nil
}

func (s *steps) say(text string) { fmt.Fprintf(s.out, "! %s\n", text) }
