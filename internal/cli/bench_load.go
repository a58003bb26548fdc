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
		Short: "Send requests by a plan and measure the answers",
		Long: `Send requests at a rate, as a trace did, or from a number of clients, and measure the answers.

With --rate, --poisson, --steps and --trace each request has a time at which it is due, and its latency counts from there:
a server that stalls is seen by all the requests that were due meanwhile. With --clients each client waits for its answer
before it asks again, so that a stall also stops the load; the percentiles then hide it.

Without any of these it is --rate 10.`,
		Example: `  penstock bench load http://app.penstock.localhost:8080/ --rate 100
  penstock bench load http://127.0.0.1:8080/v1/chat/completions --trace AzureLLMInferenceTrace_code.csv,10x --duration 1m \
    --body-template '{"messages":[{"role":"user","content":"{{words .ContextTokens}}"}],"max_tokens":{{.GeneratedTokens}}}'
  penstock bench load http://app.example/ --resolve app.example:80:127.0.0.1:8080 --clients 64 --svg latency.svg`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), env, args[0]) },
	}
	f := cmd.Flags()
	f.Float64Var(&o.rate, "rate", 0, "requests a second, evenly")
	f.Float64Var(&o.poisson, "poisson", 0, "requests a second on average, as independent users send them")
	f.Uint64Var(&o.seed, "seed", 1, "of --poisson: the same seed gives the same arrivals")
	f.StringVar(&o.steps, "steps", "", `rates in turn, such as "10/s for 30s, 100/s for 10s"`)
	f.StringVar(&o.trace, "trace", "", "CSV `file[,speed]` of arrival times (and tokens), such as trace.csv,10x")
	f.IntVar(&o.clients, "clients", 0, "clients that each wait for an answer before they ask again")
	f.DurationVar(&o.think, "think", 0, "of --clients: time between an answer and the next request")
	f.DurationVar(&o.duration, "duration", 10*time.Second, "send nothing after this time (with --steps: their sum)")
	f.Int64Var(&o.count, "count", 1_000_000, "send no more requests than this")
	f.IntVar(&o.maxOutstanding, "max-outstanding", 10_000, "requests under way at a time; more wait, and it is told")
	f.DurationVar(&o.timeout, "timeout", 30*time.Second, "for the whole of an answer")

	f.StringVar(&o.method, "method", "", "GET, or POST with a body, unless set")
	f.StringVar(&o.body, "body", "", "`text` to send, or @file")
	f.StringVar(&o.template, "body-template", "", "`text`, or @file, with {{.N}}, {{.ContextTokens}}, {{.GeneratedTokens}} and {{words n}}")
	f.StringArrayVar(&o.headers, "header", nil, "`'Name: value'` to send; may be given more than once")
	f.IntVar(&o.major, "http", 1, "version of HTTP: 1, or 2 (with http://: in the clear, without upgrade)")
	f.BoolVar(&o.newConnections, "new-connections", false, "open a connection for each request")
	f.BoolVar(&o.events, "events", false, "the answer is an event stream: time its events")
	f.BoolVar(&o.stamped, "stamped", false, "of --events: data begins with the Unix time in ns of its writing; measure the delay")
	f.IntVar(&o.messages, "messages", 0, "of a ws:// or wss:// URL: echoes to wait for on each WebSocket (1 unless set)")
	f.DurationVar(&o.leaveAfter, "leave-after", 0, "end an answer that goes on for longer; it has not failed")
	f.StringArrayVar(&o.resolve, "resolve", nil, "`host:port:address` to connect to instead of the name's; may be given more than once")
	f.StringVar(&o.roots, "cacert", "", "PEM `file` of authorities to trust instead of the system's")

	f.StringVar(&o.records, "records", "", "`file` for a JSON line a request")
	f.StringVar(&o.svg, "svg", "", "`file` for a picture of latency and rate over time")
	f.BoolVar(&o.fail, "fail", false, "exit with 1 when a request failed")
	// An option that would do nothing is a mistake of who gave it.
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if err := o.check(f.Changed); err != nil {
			return UsageError(err)
		}
		if o.steps != "" && !f.Changed("duration") {
			o.duration = 0 // theirs
		}
		return nil
	}
	return cmd
}

// check names flags that contradict each other or would do nothing.
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
		return errors.New("stopped before the end")
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

// plan is what the flags say about when requests are sent.
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

// replay reads the trace of "file" or "file,10x".
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

// request is what the flags say about what is sent.
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

// textOrFile is a text, or what is in the file that it names after an @.
func textOrFile(text string) ([]byte, error) {
	if path, ok := strings.CutPrefix(text, "@"); ok {
		return os.ReadFile(path)
	}
	return []byte(text), nil
}
