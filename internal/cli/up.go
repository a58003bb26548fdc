package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"penstock/internal/arm/app"
	"penstock/internal/resource"
)

type upOptions struct {
	scope
	environment string
	// otherEnvironment says that environment was given, and so replaces that of the manifest.
	otherEnvironment bool

	file    string
	folder  string
	image   string
	name    string
	port    int
	timeout time.Duration
	hosts   bool

	health string // path that curl can ask for
}

// write is the request that creates or changes an app.
type write struct {
	name   string
	method string
	body   []byte
}

func newUpCmd(env *Env) *cobra.Command {
	o := &upOptions{}
	cmd := &cobra.Command{
		Use:   "up [DIR]",
		Short: "Start a server in the background if none runs, and deploy a folder, a manifest or an image",
		Long: `Start a server on the data folder if none runs there, and deploy an app:

  penstock up DIR                     build the folder's image and serve it. The files that it needs and lacks (app.yaml,
                                      image.yaml or Dockerfile) are written first, as by penstock init
  penstock up -f app.yaml             the app in a Container Apps YAML file, or each app in its documents, one after the other
  penstock up --image X --port 8000   an image; if an app of that name exists, only its image changes

Then wait until the app is ready. Progress is printed to stderr, the URL to stdout.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				o.folder = args[0]
			}
			return o.run(cmd.Context(), cmd, env)
		},
	}
	o.bind(cmd.Flags())
	cmd.Flags().StringVar(&o.environment, "environment", defaultEnvironment, "environment; replaces the one that the manifest names")
	cmd.Flags().StringVarP(&o.file, "file", "f", "", "app manifest (Container Apps YAML); - reads stdin")
	cmd.Flags().StringVar(&o.image, "image", "", "image to serve")
	cmd.Flags().IntVar(&o.port, "port", 0, "with --image: port that it listens on (default: found when it runs)")
	cmd.Flags().StringVar(&o.name, "name", "", "name of a new app (default: made from the name of the folder or image); with -f, of an app whose manifest has none")
	cmd.Flags().DurationVar(&o.timeout, "timeout", 10*time.Minute, "time to wait for the app to become ready")
	cmd.Flags().BoolVar(&o.hosts, "hosts", false, "write the names of all apps to /etc/hosts, and keep them up to date until penstock down")
	env.Server(cmd.Flags())
	return cmd
}

func (o *upOptions) run(ctx context.Context, cmd *cobra.Command, env *Env) error {
	if err := o.check(cmd); err != nil {
		return err
	}
	o.otherEnvironment = cmd.Flags().Changed("environment")
	var ws []write
	var err error
	// Read what is given first, so that a fault in it is reported before anything is started.
	if o.folder != "" {
		p, err := initFolder(ctx, env.Stderr, o.folder, o.name)
		if err != nil {
			return err
		}
		o.file, o.health = cmp.Or(o.file, p.manifest), p.Health
	}
	if o.file != "" {
		if ws, err = o.manifest(env); err != nil {
			return err
		}
	}
	imageApp := ""
	if o.image != "" {
		if imageApp, err = chooseName(o.name, imageBase(o.image)); err != nil {
			return err
		}
	}
	if o.hosts {
		if err := env.hosts().writable(); err != nil {
			return err
		}
	}
	c, err := o.server(ctx, cmd, env)
	if err != nil {
		return err
	}
	if o.hosts && !c.isLocal() {
		return errors.New("--hosts: want a server on this machine, as the names get its address; got one at " + c.endpoint.Host)
	}
	if o.folder != "" {
		if err := o.buildFolder(cmd, env, c, ws[0].body); err != nil {
			return err
		}
	}
	if o.image != "" {
		w, err := o.fromImage(ctx, c, imageApp)
		if err != nil {
			return err
		}
		ws = []write{w}
	}
	if len(ws) == 0 {
		if err := o.sayWhere(ctx, cmd, env, c); err != nil {
			return err
		}
		return o.keepHosts(ctx, env, c)
	}
	return o.applyAll(ctx, env, c, ws)
}

// sayWhere prints that the server runs, and where it is reached.
func (o *upOptions) sayWhere(ctx context.Context, cmd *cobra.Command, env *Env, c *Client) error {
	s, err := c.status(ctx)
	if err != nil {
		return err
	}
	if env.Getenv("PENSTOCK_ENDPOINT") != "" {
		fmt.Fprintf(env.Stderr, "the server at %s responds\n", c.endpoint.Host)
		return nil
	}
	local, err := env.settings(cmd)
	if err != nil {
		return err
	}
	pid, err := env.running(local.Data)
	if err != nil {
		return err
	}
	at := func(port int) string { return net.JoinHostPort(httpAddress(s).String(), strconv.Itoa(port)) }
	fmt.Fprintf(env.Stderr, "a server runs on data folder %s (pid %d): requests at http://%s and https://%s, management at %s\n",
		local.Data, pid, at(s.HTTPPort), at(s.HTTPSPort), c.endpoint)
	return nil
}

// applyAll writes the apps one after the other, each when the one before it is ready.
func (o *upOptions) applyAll(ctx context.Context, env *Env, c *Client, ws []write) error {
	for i, w := range ws {
		err := func() error {
			ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, fmt.Errorf("gave up after %s", o.timeout))
			defer cancel()
			return o.apply(ctx, env, c, w)
		}()
		if err == nil {
			continue
		}
		if rest := ws[i+1:]; len(rest) > 0 {
			var names []string
			for _, w := range rest {
				names = append(names, w.name)
			}
			fmt.Fprintf(env.Stderr, "not written, because an app before them failed: %s\n", strings.Join(names, ", "))
		}
		return err
	}
	return nil
}

// server returns a client of the server given by the environment variables, or else of the data folder's server, which it
// starts if needed.
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

// maxManifest is the largest manifest that is read. The server accepts no larger one either.
const maxManifest = 4 << 20

// manifest turns the documents of the file into writes, and checks all of them.
func (o *upOptions) manifest(env *Env) ([]write, error) {
	b, err := readManifest(env, o.file)
	if err != nil {
		return nil, err
	}
	found, err := app.ParseManifests(b)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", o.file, err)
	}
	var ws []write
	lines := map[string]int{}
	for _, m := range found {
		fault := func(format string, args ...any) error {
			return fmt.Errorf("manifest %s: line %d: %w", o.file, m.Line, fmt.Errorf(format, args...))
		}
		switch {
		case m.Name == "" && len(found) == 1 && o.folder == "":
			m.Name = o.name // as with az, whose manifests need no name
		case o.name != "" && o.folder == "" && m.Name != o.name:
			return nil, fault("name: want a manifest without a name, or the name given by --name, got %q", m.Name)
		}
		if m.Name == "" {
			return nil, fault("name: missing; want the name of the app, here or as --name")
		}
		if line, twice := lines[m.Name]; twice {
			return nil, fault("name: the app %s is in line %d already", m.Name, line)
		}
		lines[m.Name] = m.Line
		body, err := withDefaults(m.Body, o.path("managedEnvironments", o.environment), o.otherEnvironment)
		if err != nil {
			return nil, err
		}
		if len(found) > 1 { // the server would find it, but only after it has written those before
			if _, _, err := app.ReadApp(resource.AppID(o.subscription, o.group, m.Name), body); err != nil {
				return nil, fault("app %s: %w", m.Name, err)
			}
		}
		ws = append(ws, write{m.Name, http.MethodPut, body})
	}
	return ws, nil
}

// readManifest reads a file, or stdin if the name is -.
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

// withDefaults adds the environment and the location if the manifest of an app or a job has none, as az does. With replace,
// the environment is the given one in any case. The rest stays as it is written.
func withDefaults(body []byte, environment string, replace bool) ([]byte, error) {
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
			return json.Marshal(doc) // not an object: the server reports it, with its position
		}
	}
	for _, name := range []string{"environmentId", "managedEnvironmentId"} {
		var id string
		key := fold(properties, name)
		if replace {
			delete(properties, key)
		} else if raw, ok := properties[key]; ok && json.Unmarshal(raw, &id) == nil && id != "" {
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

// explainEnvironment adds to the error for an environment that is not on this server how to do without it. Manifests that
// were made for Azure name one of Azure.
func explainEnvironment(err error) error {
	if e, ok := errors.AsType[*APIError](err); ok && e.Code == "ManagedEnvironmentNotFound" {
		return fmt.Errorf("%w Or leave environmentId out to use %s, or override it with --environment", err, defaultEnvironment)
	}
	return err
}

// fold returns the key as the document spells it, because ARM's names are not case-sensitive.
func fold(doc map[string]json.RawMessage, name string) string {
	for k := range doc {
		if strings.EqualFold(k, name) {
			return k
		}
	}
	return name
}

// apply writes the app and prints its progress until it is ready.
func (o *upOptions) apply(ctx context.Context, env *Env, c *Client, w write) error {
	name, path := w.name, o.path("containerApps", w.name)
	began := time.Now()
	_, answer, err := c.call(ctx, w.method, path, version(), w.body)
	if err != nil {
		return explainEnvironment(err)
	}
	if len(answer) == 0 { // a PATCH is answered with 202 and no body
		if answer, err = c.get(ctx, path, version()); err != nil {
			return err
		}
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
			steps.say("progress cannot be shown: " + err.Error())
		}
	})
	wg.Go(func() { followPulls(follow, c, line) })
	wg.Go(func() { line.pulse(follow, steps.text) })
	a, err := awaitReady(ctx, c, path)
	// When the app is ready its last event may still be on its way.
	linger, stop := context.WithTimeout(ctx, 100*time.Millisecond)
	<-linger.Done()
	stop()
	unfollow()
	wg.Wait()
	if err != nil {
		if ctx.Err() != nil && steps.trouble != "" {
			err = fmt.Errorf("%w; last: %s", err, steps.trouble)
		}
		revision := ""
		if a != nil {
			revision = a.Properties.LatestRevisionName
		}
		o.lastLines(env, c, path, revision)
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
	if err := o.keepHosts(ctx, env, c); err != nil {
		return err
	}
	env.adviseName(ctx, env.Stderr, c, a, status)
	return env.show(doc, func(w io.Writer) {
		if u := a.url(status); u != "" {
			fmt.Fprintln(w, u)
			if try := o.tryCurl(u); try != "" && (o.folder != "" || o.image != "") {
				fmt.Fprintf(env.Stderr, "try: %s\n", try)
			}
		}
	})
}

// keepHosts writes the names of apps to the machine's file of hosts, if that is wanted or was wanted before.
func (o *upOptions) keepHosts(ctx context.Context, env *Env, c *Client) error {
	if !o.hosts {
		env.refreshHosts(ctx, c, &o.scope)
		return nil
	}
	status, err := c.status(ctx)
	if err != nil {
		return err
	}
	if err := env.writeHosts(ctx, c, &o.scope, status); err != nil {
		return fmt.Errorf("--hosts: %w", err)
	}
	return nil
}

// awaitReady waits until the newest write of the app has succeeded or failed. It does not look at revisions: until the server has made one for
// this write, the latest one is that of an earlier write, which may have failed.
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
			return p.LatestRevisionName != "" && p.LatestRevisionName == p.LatestReadyRevisionName, nil
		}
		return false, nil
	})
	return a, err
}

// lastLines prints the last console lines of a revision's replicas, or of all if revision is "".
func (o *upOptions) lastLines(env *Env, c *Client, path, revision string) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	first := true
	err := c.lines(ctx, path+"/logstream", (&logsOptions{tail: 15}).query(), func(doc json.RawMessage) error {
		l, err := decode[lineView](doc)
		if err != nil {
			return err
		}
		if revision != "" && !strings.HasPrefix(l.Replica, revision+"-") {
			return nil // of a replica that serves, while the new one failed
		}
		if first {
			fmt.Fprintln(env.Stderr, "last lines of the app's console:")
			first = false
		}
		fmt.Fprintf(env.Stderr, "  %s %s  %s\n", clock(l.TimeStamp), tail(l.Replica), l.Log)
		return nil
	})
	if err != nil {
		fmt.Fprintln(env.Stderr, "cannot read the app's console:", err)
	}
}

// steps prints the events of one change as they arrive.
type steps struct {
	out   io.Writer
	began time.Time
	since time.Time // events before it belong to an earlier change

	mu      sync.Mutex
	last    string // the previous event
	message string // its message
	trouble string // the latest warning
}

// text says how long the app has been waited for, and what happened last.
func (s *steps) text(now time.Time) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprintf("  still waiting after %s; last: %s", now.Sub(s.began).Round(time.Second), cmp.Or(s.trouble, s.message, "nothing has happened yet"))
}

func (s *steps) take(doc json.RawMessage) error {
	e, err := decode[eventView](doc)
	if err != nil {
		return err
	}
	if at, ok := parseStamp(e.TimeStamp); ok && at.Before(s.since) {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.Type == "Warning" {
		s.trouble = e.Msg
	}
	what := e.Reason + " " + e.Msg
	if what == s.last {
		return nil // a probe fails the same way every second
	}
	s.last, s.message = what, e.Msg
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
