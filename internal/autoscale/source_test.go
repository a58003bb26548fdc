package autoscale_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"penstock/internal/autoscale/external/externaltest"
	"penstock/internal/pki"
	"penstock/internal/resource"
)

// scaler is an external scaler on loopback.
type scaler struct {
	*externaltest.Server
	address string
	stop    func()
}

func startScaler(t *testing.T, a externaltest.Answers, options ...grpc.ServerOption) *scaler {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &scaler{externaltest.New(a), l.Addr().String(), nil}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	s.stop = func() { cancel(); wg.Wait() }
	t.Cleanup(s.stop)
	wg.Go(func() {
		if err := s.Serve(ctx, l, options...); err != nil {
			t.Error(err)
		}
	})
	return s
}

// rule returns a scale section whose rule is measured by the scaler, with short times.
func (s *scaler) rule(kind string, metadata map[string]string, auth ...resource.RuleAuth) resource.Scale {
	all := map[string]string{resource.ScalerAddress: s.address}
	maps.Copy(all, metadata)
	return resource.Scale{
		Max: 10, Cooldown: time.Second, Polling: time.Second,
		Rules: []resource.ScaleRule{{Name: "queue", Custom: &resource.CustomRule{Type: kind, Metadata: all, Auth: auth}}},
	}
}

var (
	quick = map[string]string{"penstock.scale-in-window": "1s"}
	slow  = map[string]string{"penstock.behaviour": "azure"}
)

func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after two minutes: %s is not seen", what)
		}
	}
}

// note returns whether the first rule has failed, and its note.
func (w *world) note() (failed bool, note string) {
	e, ok := w.Explain(revID)
	if !ok || len(e.Last.Wishes) == 0 {
		return false, ""
	}
	return e.Last.Wishes[0].Failed, e.Last.Wishes[0].Note
}

func (w *world) eventsAbout(reason string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.events {
		if strings.HasPrefix(e, reason+":") {
			n++
		}
	}
	return n
}

func TestAnExternalScalerScalesToZeroAndBack(t *testing.T) {
	s := startScaler(t, externaltest.Queue(0, 10))
	w := run(t, s.rule("external", nil), quick)
	w.look()
	w.look() // it is ready
	until(t, "no replica without work", func() bool { return w.count() == 0 })
	s.Set(externaltest.Queue(35, 10))
	until(t, "4 replicas for 35 of 10", func() bool { return w.count() == 4 })
	s.Set(externaltest.Queue(12, 10))
	until(t, "2 replicas for 12 of 10", func() bool { return w.count() == 2 })
	e, _ := w.Explain(revID)
	if wish := e.Last.Wishes[0]; wish.Value != 12 || wish.Target != 10 || !wish.Active || wish.Failed {
		t.Errorf("explained as %+v", wish)
	}
	s.Set(externaltest.Queue(0, 10))
	until(t, "no replica again", func() bool { return w.count() == 0 })
	if w.eventsAbout("KEDAScalerFailed") > 0 {
		t.Errorf("events: %q", w.events)
	}
}

func TestAScalerThatFailsKeepsTheCount(t *testing.T) {
	value := func(whole int64, exact float64) externaltest.Answers {
		a := externaltest.Queue(30, 10)
		a.Values[0].Whole, a.Values[0].Exact = whole, exact
		return a
	}
	tests := map[string]struct {
		bad  externaltest.Answers
		note string
	}{
		"away":     {externaltest.Answers{}, "cannot be reached"},
		"hangs":    {externaltest.Answers{Hang: true}, "no answer within 5s"},
		"fails":    {externaltest.Answers{Err: status.Error(codes.Internal, "the queue is gone")}, "Internal: the queue is gone"},
		"NaN":      {value(0, math.NaN()), "got NaN"},
		"2^63":     {value(0, 1<<63), "got 9.223372036854776e+18"},
		"negative": {value(-1, 0), "got -1"},
		"nothing":  {externaltest.Answers{}, "want a metric and its target, got none"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startScaler(t, externaltest.Queue(30, 10))
			w := run(t, s.rule("external", nil), quick)
			w.look()
			until(t, "3 replicas", func() bool { return w.count() == 3 })
			if name == "away" {
				s.stop()
			} else {
				s.Set(test.bad)
			}
			until(t, "the failure", func() bool { failed, note := w.note(); return failed && strings.Contains(note, test.note) })
			began := time.Now()
			until(t, "some more decisions", func() bool {
				if n := w.count(); n != 3 {
					t.Fatalf("%d replicas, want the 3 that there were", n)
				}
				return time.Since(began) > 4*time.Second // the window and the cool-down period are 1 s each
			})
			if n := w.eventsAbout("KEDAScalerFailed"); n != 1 {
				t.Errorf("%d events about the failure, want 1: %q", n, w.events)
			}
		})
	}
}

func TestAPushWakesAnAppAtOnce(t *testing.T) {
	for name, tags := range map[string]map[string]string{"fast": quick, "azure": slow} {
		t.Run(name, func(t *testing.T) {
			s := startScaler(t, externaltest.Queue(0, 1))
			scale := s.rule("external-push", nil)
			scale.Polling = time.Hour
			w := run(t, scale, tags)
			w.look()
			w.look() // it is ready
			until(t, "no replica without work", func() bool { return w.count() == 0 })
			until(t, "a stream", func() bool { return s.Streams() == 1 })
			before := s.Calls("IsActive")
			began := time.Now()
			s.Set(externaltest.Queue(3, 1))
			until(t, "a replica", func() bool { return w.count() >= 1 })
			t.Logf("a replica after %v", time.Since(began))
			if polls := s.Calls("IsActive") - before; name == "azure" && polls > 0 {
				t.Errorf("%d polls in between", polls)
			}
			if name == "fast" {
				until(t, "3 replicas", func() bool { return w.count() == 3 })
			}
		})
	}
}

// A flood of pushes is read, costs few calls, and the last push counts.
func TestAFloodOfPushesIsBounded(t *testing.T) {
	a := externaltest.Queue(2, 1)
	a.Flood = 10_000
	s := startScaler(t, a)
	scale := s.rule("external-push", nil)
	scale.Polling = time.Hour
	w := run(t, scale, quick)
	w.look()
	began := time.Now()
	until(t, "2 replicas", func() bool { return w.count() == 2 })
	for range 5 {
		s.Set(a)
	}
	quiet := externaltest.Queue(0, 1)
	quiet.Flood = 10_001
	s.Set(quiet)
	until(t, "no replica after the last push", func() bool { return w.count() == 0 })
	if most := int(time.Since(began).Seconds()) + 3; s.Calls("GetMetrics") > most {
		t.Errorf("%d calls of GetMetrics in %v, want at most %d", s.Calls("GetMetrics"), time.Since(began), most)
	}
	if n := len(w.records); n > 40 {
		t.Errorf("%d decisions were recorded", n)
	}
}

func TestMetadataHasVariablesAndSecrets(t *testing.T) {
	s := startScaler(t, externaltest.Queue(20, 10))
	env := []resource.EnvVar{{Name: "QUEUE", Value: "mail"}, {Name: "PASSWORD", SecretRef: "password"}, {Name: "EMPTY"}}
	w := newWorld(t, s.rule("external", map[string]string{"queueFromEnv": "QUEUE", "passwordFromEnv": "PASSWORD", "emptyFromEnv": "EMPTY", "plain": "x"}), quick)
	w.rev.Template.Containers[0].Env = env
	w.secrets = map[string]resource.Secret{"password": "first"}
	w.start(t)
	w.look()
	until(t, "2 replicas", func() bool { return w.count() == 2 })
	if got := fmt.Sprint(s.Metadata()); got != fmt.Sprintf("map[passwordFromEnv:first plain:x queueFromEnv:mail scalerAddress:%s]", s.address) {
		t.Errorf("the scaler got %s", got)
	}
	w.mu.Lock()
	w.secrets = map[string]resource.Secret{"password": "second"}
	w.mu.Unlock()
	until(t, "the new password", func() bool { return s.Metadata()["passwordFromEnv"] == "second" })
	w.mu.Lock()
	w.secrets = nil
	w.mu.Unlock()
	until(t, "the failure", func() bool {
		failed, note := w.note()
		return failed && strings.Contains(note, `secret "password" of chat does not exist any more`)
	})
	if w.count() != 2 {
		t.Errorf("%d replicas, want 2", w.count())
	}
}

func TestCertificates(t *testing.T) {
	authority, err := pki.LoadOrCreate(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cert, key, _, err := authority.Issue([]string{"scaler.test"})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	s := startScaler(t, externaltest.Queue(20, 10), grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert})))
	_, port, _ := net.SplitHostPort(s.address)
	auth := func(names ...string) (all []resource.RuleAuth) {
		for _, n := range names {
			all = append(all, resource.RuleAuth{SecretRef: strings.ToLower(n), TriggerParameter: n})
		}
		return all
	}
	named := map[string]string{resource.ScalerAddress: "scaler.test:" + port}
	with := func(metadata map[string]string) map[string]string {
		metadata[resource.ScalerAddress] = named[resource.ScalerAddress]
		return metadata
	}
	tests := map[string]struct {
		metadata map[string]string
		auth     []resource.RuleAuth
		roots    *x509.CertPool
		note     string // empty: it works
	}{
		"its authority and a client certificate": {named, auth("caCert", "tlsClientCert", "tlsClientKey"), nil, ""},
		"any certificate":                        {with(map[string]string{"unsafeSsl": "true"}), auth("tlsClientCert", "tlsClientKey"), nil, ""},
		"an authority that is unknown":           {named, auth("tlsClientCert", "tlsClientKey"), x509.NewCertPool(), "certificate signed by unknown authority"},
		"no client certificate":                  {with(map[string]string{"enableTLS": "true", "unsafeSsl": "true"}), nil, nil, "IsActive: cannot be reached"},
		"a text that is no certificate":          {named, []resource.RuleAuth{{SecretRef: "text", TriggerParameter: "caCert"}}, nil, "caCert: want certificates in PEM"},
		"a key that is not its certificate's":    {named, []resource.RuleAuth{{SecretRef: "tlsclientcert", TriggerParameter: "tlsClientCert"}, {SecretRef: "text", TriggerParameter: "tlsClientKey"}}, nil, "want a certificate and its key in PEM"},
		"no encryption":                          {named, nil, nil, "IsActive: cannot be reached"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, s.rule("external", test.metadata, test.auth...), quick)
			w.roots = test.roots
			w.secrets = map[string]resource.Secret{
				"cacert": resource.Secret(authority.CertPEM()), "tlsclientcert": resource.Secret(cert), "tlsclientkey": resource.Secret(key), "text": "nonsense",
			}
			w.start(t)
			w.look()
			if test.note == "" {
				until(t, "2 replicas", func() bool { return w.count() == 2 })
				return
			}
			until(t, "the failure", func() bool { failed, note := w.note(); return failed && strings.Contains(note, test.note) })
			if _, note := w.note(); strings.Contains(note, "nonsense") {
				t.Errorf("the note reveals a secret: %s", note)
			}
		})
	}
}

func TestTheConnectionEndsWithTheRule(t *testing.T) {
	s := startScaler(t, externaltest.Queue(20, 10))
	w := run(t, s.rule("external-push", nil), quick)
	w.look()
	until(t, "a stream", func() bool { return s.Streams() == 1 })
	w.Forget(revID)
	until(t, "no stream", func() bool { return s.Streams() == 0 })
	calls := s.Calls("IsActive")
	time.Sleep(2 * time.Second) // two polls
	if now := s.Calls("IsActive"); now != calls {
		t.Errorf("%d calls after the rule was gone", now-calls)
	}
	w.look()
	until(t, "a stream again", func() bool { return s.Streams() == 1 })
	w.stop()
	until(t, "no stream after the end", func() bool { return s.Streams() == 0 })
}

func TestAStreamIsOpenedAgain(t *testing.T) {
	s := startScaler(t, externaltest.Queue(0, 1))
	scale := s.rule("external-push", nil)
	w := run(t, scale, quick)
	w.look()
	until(t, "a stream", func() bool { return s.Streams() == 1 })
	s.Set(externaltest.Answers{Err: errors.New("restarting")})
	until(t, "the end of the stream", func() bool { return s.Streams() == 0 })
	s.Set(externaltest.Queue(0, 1))
	until(t, "a stream again", func() bool { return s.Streams() == 1 })
	until(t, "a value", func() bool { failed, _ := w.note(); return !failed })
}

var score = resource.Job{
	Meta:          resource.Meta{ID: resource.JobID("s", "g", "score")},
	Configuration: resource.JobConfiguration{Trigger: resource.TriggerEvent, Scale: resource.JobScale{Max: 10, Polling: time.Second}},
}

// A job is told each value once.
func TestDemandOfAJob(t *testing.T) {
	s := startScaler(t, externaltest.Queue(25, 10))
	w := run(t, resource.Scale{Max: 1}, nil)
	job := score
	job.Generation = 1
	job.Configuration.Scale.Rules = s.rule("external", nil).Rules
	settings, err := resource.ParseSettings(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	demand := func() (int, time.Time) {
		n, at := 0, time.Time{}
		until(t, "a demand", func() bool {
			var ok bool
			n, at, ok = w.Demand(job, settings)
			return ok
		})
		return n, at
	}
	n, first := demand()
	if n != 3 || first.Before(began) || first.After(time.Now()) {
		t.Errorf("%d executions for 25 of 10 at %v, want 3", n, first)
	}
	if n, _, ok := w.Demand(job, settings); ok {
		t.Errorf("the same value was told again: %d", n)
	}
	if w.touched(job.ID) == 0 {
		t.Error("reconcile was not told of the demand")
	}
	nan := externaltest.Answers{Active: true, Specs: externaltest.Queue(1, 1).Specs, Values: []externaltest.Metric{{Name: "queue", Exact: math.NaN()}}}
	if e := w.ExplainJob(job.ID); len(e) != 1 || e[0].Value != 25 || e[0].Target != 10 || e[0].Wanted != 3 || !e[0].Active || e[0].Failed {
		t.Errorf("explained as %+v", e)
	}
	s.Set(nan)
	until(t, "the failure", func() bool { return w.eventsAbout("KEDAScalerFailed") == 1 })
	if e := w.ExplainJob(job.ID); len(e) != 1 || e[0].Wanted != 0 || !e[0].Failed || !strings.Contains(e[0].Note, "NaN") {
		t.Errorf("explained as %+v", e)
	}
	if n, _, ok := w.Demand(job, settings); ok && n != 3 {
		t.Errorf("%d executions for NaN", n)
	}
	inactive := externaltest.Queue(7, 1)
	inactive.Active = false
	s.Set(inactive)
	until(t, "no demand of a source that is not active", func() bool { n, _ := demand(); return n == 0 })
	job.Generation = 2
	job.Configuration.Scale.Rules = []resource.ScaleRule{{Name: "always", Custom: &resource.CustomRule{Type: "cron", Metadata: map[string]string{
		"start": "0 0 * * *", "end": "59 23 * * *", "timezone": "UTC", "desiredReplicas": "2",
	}}}}
	if at := time.Now().UTC(); at.Hour() != 23 || at.Minute() < 58 {
		if n, _ := demand(); n != 2 {
			t.Errorf("%d executions within the window of a cron rule, want 2", n)
		}
	}
	w.Forget(job.ID)
	calls := s.Calls("IsActive")
	if w.Forget(job.ID); s.Calls("IsActive") > calls+1 {
		t.Error("the source of a forgotten job is asked")
	}
}

// In virtual time: how often a scaler is asked.
func TestHowOftenAScalerIsAsked(t *testing.T) {
	tests := map[string]struct {
		kind    string
		tags    map[string]string
		length  int64 // of the queue
		polling time.Duration
		within  time.Duration
		// How often each is called.
		active, values, streams int
	}{
		"fast":                    {"external", nil, 5, 30 * time.Second, 2 * time.Minute, 24, 24, 0},
		"fast, polled more often": {"external", nil, 5, 2 * time.Second, time.Minute, 30, 30, 0},
		"azure with replicas":     {"external", slow, 5, 60 * time.Second, 4 * time.Minute, 4, 16, 0},
		"azure without a replica": {"external", slow, 0, 60 * time.Second, 30 * time.Minute, 30, 30, 0},
		"a stream is replaced":    {"external-push", nil, 5, 30 * time.Second, 2 * time.Minute, 24, 24, 4},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conns := make(chan net.Conn)
				s := externaltest.New(externaltest.Queue(test.length, 5))
				var wg sync.WaitGroup
				defer wg.Wait()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				wg.Go(func() {
					if err := s.Serve(ctx, &pipeListener{conns: conns, closed: make(chan struct{})}); err != nil {
						t.Error(err)
					}
				})
				w := newWorld(t, (&scaler{address: "scaler:80"}).rule(test.kind, nil), test.tags)
				w.rev.Template.Scale.Polling = test.polling
				w.dial = func(ctx context.Context) (net.Conn, error) {
					ours, theirs := net.Pipe()
					select {
					case conns <- theirs:
						return ours, nil
					case <-ctx.Done():
						return nil, ctx.Err()
					}
				}
				w.start(t)
				defer w.stop()
				w.look()
				w.look()
				time.Sleep(test.within - time.Millisecond)
				synctest.Wait()
				for method, want := range map[string]int{"IsActive": test.active, "GetMetrics": test.values, "StreamIsActive": test.streams} {
					if got := s.Calls(method); got < want-1 || got > want+1 {
						t.Errorf("%s was called %d times in %v, want about %d", method, got, test.within, want)
					}
				}
				if failed, note := w.note(); failed || strings.Contains(note, "pushes") {
					t.Errorf("the rule has failed %v, note %q", failed, note)
				}
			})
		})
	}
}

// pipeListener accepts connections from a channel.
type pipeListener struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }
