package cli

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"penstock/internal/load"
)

type benchLoadOptions struct {
	rate, poisson  float64
	seed           uint64
	steps, trace   string
	clients        int
	think          time.Duration
	duration       time.Duration
	count          int64
	maxOutstanding int

	method, body, template string
	headers, resolve       []string
	major                  int
	newConnections         bool
	events, stamped        bool
	messages               int
	leaveAfter, timeout    time.Duration
	roots                  string

	records, svg string
	fail         bool
}

func newBenchLoadCmd(env *Env) *cobra.Command {
	o := &benchLoadOptions{}
	cmd := &cobra.Command{
		Use:   "load URL",
		Short: "Send requests and measure the responses",
		Long: `Send requests at a given rate, as in a recorded trace, or from a number of clients, and measure the responses.

With --rate, --poisson, --steps and --trace each request is due at a certain time, and its latency counts from then on. A
stall of the server shows in the latency of every request that was due meanwhile. With --clients each client waits for a
response before its next request. A stall then also stops the load, and the percentiles hide it.

The default is --rate 10.`,
		Example: `  penstock bench load http://app.penstock.localhost:8080/ --rate 100
  penstock bench load http://127.0.0.1:8080/v1/chat/completions --trace AzureLLMInferenceTrace_code.csv,10x --duration 1m \
    --body-template '{"messages":[{"role":"user","content":"{{words .ContextTokens}}"}],"max_tokens":{{.GeneratedTokens}}}'
  penstock bench load http://app.example/ --resolve app.example:80:127.0.0.1:8080 --clients 64 --svg latency.svg`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), env, args[0]) },
	}
	f := cmd.Flags()
	f.Float64Var(&o.rate, "rate", 0, "requests per second, evenly spaced")
	f.Float64Var(&o.poisson, "poisson", 0, "average requests per second, with Poisson arrivals as from independent users")
	f.Uint64Var(&o.seed, "seed", 1, "with --poisson: random seed; the same seed gives the same arrivals")
	f.StringVar(&o.steps, "steps", "", `rates one after another, such as "10/s for 30s, 100/s for 10s"`)
	f.StringVar(&o.trace, "trace", "", "CSV `file[,speed]` of arrival times (and tokens), such as trace.csv,10x")
	f.IntVar(&o.clients, "clients", 0, "number of clients, each of which waits for a response before its next request")
	f.DurationVar(&o.think, "think", 0, "with --clients: pause between a response and the next request")
	f.DurationVar(&o.duration, "duration", 10*time.Second, "stop sending after this time (default with --steps: the sum of the steps)")
	f.Int64Var(&o.count, "count", 1_000_000, "maximum number of requests")
	f.IntVar(&o.maxOutstanding, "max-outstanding", 10_000, "maximum requests in flight; more wait, and the report says so")
	f.DurationVar(&o.timeout, "timeout", 30*time.Second, "time limit for a whole response")

	f.StringVar(&o.method, "method", "", "HTTP method (default: GET, or POST with a body)")
	f.StringVar(&o.body, "body", "", "`text` to send, or @file")
	f.StringVar(&o.template, "body-template", "", "`text`, or @file, with {{.N}}, {{.ContextTokens}}, {{.GeneratedTokens}} and {{words n}}")
	f.StringArrayVar(&o.headers, "header", nil, "header `'Name: value'` to send; can be repeated")
	f.IntVar(&o.major, "http", 1, "HTTP version: 1, or 2 (with http://: unencrypted, with prior knowledge)")
	f.BoolVar(&o.newConnections, "new-connections", false, "open a new connection for each request")
	f.BoolVar(&o.events, "events", false, "treat responses as event streams and time their events")
	f.BoolVar(&o.stamped, "stamped", false, "with --events: event data starts with the Unix time in ns at which it was written; measure the delay")
	f.IntVar(&o.messages, "messages", 0, "with a ws:// or wss:// URL: echoes to wait for on each WebSocket (default: 1)")
	f.DurationVar(&o.leaveAfter, "leave-after", 0, "close a response after this time and do not count it as failed")
	f.StringArrayVar(&o.resolve, "resolve", nil, "`host:port:address`: connect to this address instead of looking up the host; can be repeated")
	f.StringVar(&o.roots, "cacert", "", "PEM `file` with certificate authorities to trust instead of the system's")

	f.StringVar(&o.records, "records", "", "`file` to write one JSON line per request to")
	f.StringVar(&o.svg, "svg", "", "`file` to write an SVG chart of latency and rate over time to")
	f.BoolVar(&o.fail, "fail", false, "exit with code 1 if a request failed")
	// A flag that would have no effect is a mistake, so check rejects it.
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if err := o.check(f.Changed); err != nil {
			return UsageError(err)
		}
		if o.steps != "" && !f.Changed("duration") {
			o.duration = 0 // the steps decide
		}
		return nil
	}
	return cmd
}

// check returns an error for flags that contradict each other or would have no effect.
func (o *benchLoadOptions) check(given func(flag string) bool) error {
	for _, group := range [][]string{{"rate", "poisson", "steps", "trace", "clients"}, {"body", "body-template"}, {"clients", "max-outstanding"}} {
		first := ""
		for _, name := range group {
			switch {
			case given(name) && first != "":
				return fmt.Errorf("want --%s or --%s, got both", first, name)
			case given(name):
				first = name
			}
		}
	}
	for _, pair := range [][2]string{{"seed", "poisson"}, {"think", "clients"}, {"stamped", "events"}} {
		if given(pair[0]) && !given(pair[1]) {
			return fmt.Errorf("--%s: want --%s too", pair[0], pair[1])
		}
	}
	for name, rate := range map[string]float64{"rate": o.rate, "poisson": o.poisson} {
		if given(name) {
			if err := load.CheckRate(rate); err != nil {
				return fmt.Errorf("--%s: %w", name, err)
			}
		}
	}
	if given("clients") && o.clients < 1 {
		return fmt.Errorf("--clients: want 1 to %d, got %d", load.MaxOutstanding, o.clients)
	}
	for name, text := range map[string]string{"steps": o.steps, "trace": o.trace} {
		if given(name) && text == "" {
			return fmt.Errorf("--%s: want a value, got none", name)
		}
	}
	return nil
}

func (o *benchLoadOptions) run(ctx context.Context, env *Env, url string) (err error) {
	plan, err := o.plan()
	if err != nil {
		return err
	}
	req, err := o.request(url)
	if err != nil {
		return err
	}
	var records io.Writer
	if o.records != "" {
		f, err := os.Create(o.records)
		if err != nil {
			return fmt.Errorf("--records: %w", err)
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		records = f
	}
	l, err := load.New(ctx, req, plan, records)
	if errors.Is(err, load.ErrPlan) || errors.Is(err, load.ErrRequest) {
		return UsageError(err)
	}
	if err != nil {
		return err
	}
	if t := l.Target(); !t.Loopback {
		fmt.Fprintf(env.Stderr, "warning: %s is not this machine; make sure that its owner wants this load\n", t.Address)
	}
	summary, timeline, err := l.Run(ctx)
	if err != nil {
		return err
	}
	if err := env.show(summary, summary.WriteText); err != nil {
		return err
	}
	if o.svg != "" {
		if err := writeSVG(o.svg, summary, timeline); err != nil {
			return fmt.Errorf("--svg: %w", err)
		}
	}
	if ctx.Err() != nil {
		return errors.New("interrupted before the end")
	}
	if o.fail && summary.Failed > 0 {
		return fmt.Errorf("%d of %d requests failed", summary.Failed, summary.Requests)
	}
	return nil
}

func writeSVG(path string, s *load.Summary, t *load.Timeline) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return t.WriteSVG(f, s)
}

// plan turns the flags into the times at which requests are sent.
func (o *benchLoadOptions) plan() (load.Plan, error) {
	p := load.Plan{Duration: o.duration, Count: o.count, MaxOutstanding: o.maxOutstanding}
	switch {
	case o.clients > 0:
		p.Clients, p.Think, p.MaxOutstanding = o.clients, o.think, 0
		p.Words = fmt.Sprintf("%d clients", o.clients)
		if o.think > 0 {
			p.Words += fmt.Sprintf(" that think for %s", o.think)
		}
	case o.poisson > 0:
		p.Arrivals, p.Endless = load.Poisson(o.poisson, o.seed), true
		p.Words = fmt.Sprintf("Poisson %g/s, seed %d", o.poisson, o.seed)
	case o.steps != "":
		steps, err := load.ParseSteps(o.steps)
		if err != nil {
			return p, UsageError(fmt.Errorf("--steps: %w", err))
		}
		if p.Duration == 0 {
			p.Duration = load.Total(steps)
		}
		p.Arrivals, p.Words = load.Stepped(steps), o.steps
	case o.trace != "":
		return o.replay(p)
	default:
		rate := o.rate
		if rate == 0 {
			rate = 10
		}
		p.Arrivals, p.Endless, p.Words = load.Constant(rate), true, fmt.Sprintf("%g/s", rate)
	}
	return p, nil
}

// replay reads a trace given as "file" or "file,10x".
func (o *benchLoadOptions) replay(p load.Plan) (load.Plan, error) {
	path, speed := o.trace, 1.0
	if name, after, ok := lastCut(o.trace, ","); ok {
		var err error
		path = name
		if speed, err = strconv.ParseFloat(strings.TrimSuffix(after, "x"), 64); err != nil || !(speed >= 1e-3 && speed <= 1e6) {
			return p, UsageError(fmt.Errorf("--trace: want a speed from 0.001x to 1000000x after the comma, got %q", after))
		}
	}
	f, err := os.Open(path)
	if err != nil {
		return p, fmt.Errorf("--trace: %w", err)
	}
	defer f.Close()
	trace, err := load.ReadTrace(f)
	if err != nil {
		return p, fmt.Errorf("--trace: %s: %w", path, err)
	}
	p.Arrivals, p.Words = load.Replay(trace, speed), fmt.Sprintf("trace %s at %gx", filepath.Base(path), speed)
	return p, nil
}

func lastCut(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// request turns the flags into the request that is sent.
func (o *benchLoadOptions) request(url string) (load.Request, error) {
	r := load.Request{
		URL: url, Method: o.method, Header: http.Header{}, Major: o.major, NewConnections: o.newConnections,
		Events: o.events, Stamped: o.stamped, Messages: o.messages, LeaveAfter: o.leaveAfter, Timeout: o.timeout,
		Resolve: map[string]string{},
	}
	for _, h := range o.headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok {
			return r, UsageError(fmt.Errorf("--header: want 'Name: value', got %q", h))
		}
		r.Header.Add(name, strings.TrimSpace(value))
	}
	for _, text := range o.resolve {
		hostPort, address, err := load.ParseResolve(text)
		if err != nil {
			return r, UsageError(fmt.Errorf("--resolve: %w", err))
		}
		r.Resolve[hostPort] = address
	}
	body, err := textOrFile(o.body)
	if err != nil {
		return r, fmt.Errorf("--body: %w", err)
	}
	if o.body != "" {
		r.Body = body
	}
	template, err := textOrFile(o.template)
	if err != nil {
		return r, fmt.Errorf("--body-template: %w", err)
	}
	r.Template = string(template)
	if o.roots != "" {
		pem, err := os.ReadFile(o.roots)
		if err != nil {
			return r, fmt.Errorf("--cacert: %w", err)
		}
		r.Roots = x509.NewCertPool()
		if !r.Roots.AppendCertsFromPEM(pem) {
			return r, fmt.Errorf("--cacert: %s: want certificates in PEM", o.roots)
		}
	}
	return r, nil
}

// textOrFile returns a text, or with @FILE the content of that file.
func textOrFile(text string) ([]byte, error) {
	if path, ok := strings.CutPrefix(text, "@"); ok {
		return os.ReadFile(path)
	}
	return []byte(text), nil
}
