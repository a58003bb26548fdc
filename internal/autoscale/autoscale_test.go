package autoscale_test

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"penstock/internal/autoscale"
	"penstock/internal/decisions"
	"penstock/internal/link"
	"penstock/internal/resource"
	"penstock/internal/runtimes"
)

var (
	app   = resource.App{Meta: resource.Meta{ID: resource.AppID("s", "g", "chat")}, Configuration: resource.Configuration{Ingress: &resource.Ingress{TargetPort: 8080}}}
	revID = app.ID.Child("revisions", "chat--1")
)

// world is a scaler with an engine that has the wanted replicas at once.
type world struct {
	*autoscale.Scaler
	demand chan map[string]link.Demand
	rev    resource.Revision
	stop   func()

	mu       sync.Mutex
	replicas []resource.Replica
	events   []string
	records  []decisions.Decision
	usage    runtimes.Usage
	secrets  map[string]resource.Secret
	touches  map[string]int

	learned string
	roots   *x509.CertPool
	dial    func(ctx context.Context) (net.Conn, error) // nil: over the network
}

func run(t *testing.T, s resource.Scale, tags map[string]string) *world {
	t.Helper()
	return runWith(t, filepath.Join(t.TempDir(), "learned.json"), s, tags)
}

// runWith is run with a file of learned times.
func runWith(t *testing.T, learned string, s resource.Scale, tags map[string]string) *world {
	t.Helper()
	w := newWorld(t, s, tags)
	w.learned = learned
	w.start(t)
	return w
}

// newWorld returns a world that does not run yet.
func newWorld(t *testing.T, s resource.Scale, tags map[string]string) *world {
	t.Helper()
	settings, err := resource.ParseSettings(nil, tags)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{demand: make(chan map[string]link.Demand), touches: map[string]int{}, learned: filepath.Join(t.TempDir(), "learned.json")}
	w.rev = resource.Revision{
		ID: revID, Created: time.Now(), RevisionStatus: resource.RevisionStatus{Settings: settings},
		Template: resource.Template{Scale: s, Containers: []resource.Container{{Resources: resource.Resources{MilliCPU: 1000, Memory: 1 << 30}}}},
	}
	return w
}

func (w *world) start(t *testing.T) {
	t.Helper()
	w.Scaler = autoscale.New(autoscale.Config{
		Demand: func(ctx context.Context) (map[string]link.Demand, error) {
			select {
			case d := <-w.demand:
				return d, nil
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		},
		Usage: func(context.Context, string) (runtimes.Usage, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.usage, nil
		},
		Touch: func(id resource.ID) {
			w.mu.Lock()
			w.touches[id.Key()]++
			w.mu.Unlock()
			if id.Is(resource.TypeApp) {
				w.look()
			}
		},
		Secrets: func(context.Context, resource.ID) (map[string]resource.Secret, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.secrets, nil
		},
		Dial: func(ctx context.Context, _ resource.ID, address string) (net.Conn, error) {
			if _, port, _ := net.SplitHostPort(address); strings.HasPrefix(address, "scaler.test:") {
				address = "127.0.0.1:" + port
			}
			if w.dial != nil {
				return w.dial(ctx)
			}
			var d net.Dialer
			return d.DialContext(ctx, "tcp", address)
		},
		Roots:   w.roots,
		Learned: w.learned,
		Log:     slog.New(slog.NewTextHandler(t.Output(), nil)),
		Record: func(d decisions.Decision) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.records = append(w.records, d)
		},
		Emit: func(e resource.Event) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.events = append(w.events, e.Reason+": "+e.Message)
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	w.stop = func() { cancel(); wg.Wait() }
	t.Cleanup(w.stop)
	wg.Go(func() { _ = w.Run(ctx) })
}

// touched returns how often an app or a job was touched.
func (w *world) touched(id resource.ID) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.touches[id.Key()]
}

// look does what reconcile does: it asks for the count and provides as many replicas.
func (w *world) look() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, _ := w.Wanted(app, w.rev, w.replicas)
	for len(w.replicas) < n {
		w.replicas = append(w.replicas, resource.Replica{Name: time.Now().Format(time.RFC3339Nano) + strings.Repeat("x", len(w.replicas)), State: resource.ReplicaReady, Created: time.Now(), ReadySince: time.Now()})
	}
	w.replicas = w.replicas[:n]
	w.Wanted(app, w.rev, w.replicas)
	if w.rev.Ready.IsZero() {
		w.rev.Ready = time.Now()
	}
	return n
}

func (w *world) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.replicas)
}

func http(target int) []resource.ScaleRule {
	return []resource.ScaleRule{{Name: "users", HTTP: &resource.RequestRule{Concurrent: target}}}
}

// A new revision starts one replica to check that it works, scales to zero after the cool-down period, and is woken by
// a request.
func TestFromTheFirstReplicaToZeroAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := run(t, resource.Scale{Max: 10, Cooldown: 300 * time.Second, Polling: 30 * time.Second, Rules: http(10)}, nil)
		if n := w.look(); n != 1 {
			t.Fatalf("a new revision: %d replicas, want 1", n)
		}
		w.look() // it is ready
		time.Sleep(299 * time.Second)
		if n := w.count(); n != 1 {
			t.Fatalf("before the cool-down period is over: %d replicas, want 1", n)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n := w.count(); n != 0 {
			t.Fatalf("after the cool-down period: %d replicas, want 0", n)
		}
		began := time.Now()
		w.demand <- map[string]link.Demand{revID.String(): {Arrivals: 1, Queued: 1}}
		synctest.Wait()
		if n := w.count(); n != 1 || time.Since(began) > 0 {
			t.Fatalf("after a request: %d replicas after %v, want 1 at once", n, time.Since(began))
		}
		got := strings.Join(w.events, "\n")
		if !strings.HasPrefix(w.events[0], "KEDAScaleTargetDeactivated: ") || !strings.HasPrefix(w.events[1], "KEDAScaleTargetActivated: ") || !strings.Contains(got, `rule "users"`) {
			t.Errorf("events:\n%s", got)
		}
		e, ok := w.Explain(revID)
		if !ok || e.Wanted != 1 || e.Last.Wishes[0].Target != 10 {
			t.Errorf("explained as %+v, %v", e, ok)
		}
		changes := slices.DeleteFunc(w.records, func(d decisions.Decision) bool { return d.From == d.To })
		if len(changes) != 2 || changes[0].From != 1 || changes[0].To != 0 || changes[0].App != app.ID || changes[0].Revision != "chat--1" {
			t.Fatalf("recorded %+v, want 1 to 0 and 0 to 1", changes)
		}
		if d := changes[1]; d.Rule != "users" || d.Value != 1 || d.Target != 10 || d.Wanted != 1 || d.From != 0 || d.To != 1 || !d.At.Equal(began) || d.Reason == "" {
			t.Errorf("recorded %+v", d)
		}
	})
}

// For a single replica that is idle between requests, the cool-down period limits the count again and again. This is
// not recorded each time.
func TestRecordsOfOneCountAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := run(t, resource.Scale{Max: 10, Cooldown: 300 * time.Second, Polling: 30 * time.Second, Rules: http(10)}, nil)
		w.look()
		for range 300 {
			w.demand <- map[string]link.Demand{revID.String(): {Arrivals: 1, Now: 1}}
			time.Sleep(500 * time.Millisecond)
			w.demand <- map[string]link.Demand{revID.String(): {Ended: 1}}
			time.Sleep(500 * time.Millisecond)
		}
		synctest.Wait()
		w.mu.Lock()
		defer w.mu.Unlock()
		if n := len(w.records); n < 2 || n > 6 {
			t.Errorf("%d records in 5 minutes of 300 requests, want some and at most one a minute", n)
		}
	})
}

// The learned times survive a restart, even after a crash, and the count is held for one window.
func TestLearnedTimesSurviveARestart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "learned.json")
	rules := resource.Scale{Max: 10, Cooldown: 300 * time.Second, Polling: 30 * time.Second, Rules: http(10)}
	synctest.Test(t, func(t *testing.T) {
		w := runWith(t, file, rules, nil)
		w.look()
		w.demand <- map[string]link.Demand{revID.String(): {Arrivals: 40, Ended: 40, Served: 40 * 2 * time.Second, Now: 40}}
		synctest.Wait()
		if n := w.count(); n < 4 {
			t.Fatalf("%d replicas, want 4 or more", n)
		}
		time.Sleep(31 * time.Second)
		synctest.Wait()
		running := w.count()
		saved, err := os.ReadFile(file)
		if err != nil {
			t.Fatalf("after 31 s: %v", err)
		}
		w.stop()
		if err := os.WriteFile(file, saved, 0o600); err != nil { // as a kill would have left it
			t.Fatal(err)
		}

		next := runWith(t, file, rules, nil)
		next.rev.Ready, next.replicas = w.rev.Ready, w.replicas
		if n := next.look(); n != running {
			t.Errorf("after a restart: %d replicas wanted, want the %d that run", n, running)
		}
		if e, _ := next.Explain(revID); e.Learned.Service != 2*time.Second {
			t.Errorf("after a restart a request takes %v, want 2s as before", e.Learned.Service)
		}
		time.Sleep(5 * time.Second)
		if n := next.count(); n != running {
			t.Errorf("within the window after a restart: %d replicas, want %d", n, running)
		}
		next.Forget(revID)
		next.stop()
		if saved, err := os.ReadFile(file); err != nil || strings.Contains(string(saved), "chat--1") {
			t.Errorf("a forgotten revision: %s, %v", saved, err)
		}
	})
	for name, content := range map[string]string{
		"empty": "", "no JSON": "{", "a version to come": `{"format":"penstock-learned","version":2}`,
		"a negative time": `{"format":"penstock-learned","version":1,"revisions":{"x":{"serviceNs":-1}}}`,
	} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		synctest.Test(t, func(t *testing.T) {
			if w := runWith(t, file, rules, nil); w.look() != 1 {
				t.Errorf("%s: an app does not start", name)
			}
		})
	}
}

// TestRules checks what a rule of each kind does.
func TestRules(t *testing.T) {
	custom := func(kind string, metadata map[string]string) []resource.ScaleRule {
		return []resource.ScaleRule{{Name: "r", Custom: &resource.CustomRule{Type: kind, Metadata: metadata}}}
	}
	cpu := custom("cpu", map[string]string{"type": "Utilization", "value": "50"})
	tests := map[string]struct {
		rules []resource.ScaleRule
		usage float64 // cores
		after time.Duration
		want  int
		note  string
	}{
		"cpu above its target":     {cpu, 1, time.Minute, 4, "cannot scale to or from zero"},
		"cpu does not lead to 0":   {cpu, 0, time.Hour, 1, "cannot scale to or from zero"},
		"cron within its window":   {custom("cron", map[string]string{"start": "0 0 * * *", "end": "59 23 * * *", "timezone": "UTC", "desiredReplicas": "4"}), 0, time.Minute, 4, ""},
		"a type that is not known": {custom("kafka", nil), 0, time.Hour, 1, "not evaluated here: kafka"},
		"a queue":                  {[]resource.ScaleRule{{Name: "r", AzureQueue: &resource.QueueRule{QueueName: "q"}}}, 0, time.Hour, 1, "not evaluated here: azureQueue"},
		"an amount of cpu":         {custom("cpu", map[string]string{"type": "AverageValue", "value": "300m"}), 0.8, time.Minute, 4, "in vCPUs; cannot scale to or from zero"},
		"no amount of cpu":         {custom("cpu", map[string]string{"type": "AverageValue", "value": "300m"}), 0, time.Hour, 1, "in vCPUs; cannot scale to or from zero"},
		"memory at its target":     {custom("memory", map[string]string{"type": "AverageValue", "value": "550Mi"}), 0, time.Hour, 1, "in MiB; cannot scale to or from zero; within tolerance"},
		"memory above its target":  {custom("memory", map[string]string{"type": "AverageValue", "value": "500Mi"}), 0, time.Minute, 4, "in MiB; cannot scale to or from zero"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := run(t, resource.Scale{Max: 4, Cooldown: 300 * time.Second, Polling: 30 * time.Second, Rules: test.rules}, nil)
				w.mu.Lock()
				w.usage.WorkingSet = 600 << 20
				w.mu.Unlock()
				w.look()
				w.look()
				time.Sleep(time.Second) // so that replicas are never measured and busy at the same instant
				for began := time.Now(); time.Since(began) < test.after; time.Sleep(5 * time.Second) {
					w.mu.Lock()
					w.usage.CPUNanos += uint64(test.usage * 5e9) // each replica
					w.mu.Unlock()
				}
				synctest.Wait()
				e, _ := w.Explain(revID)
				if cron := test.rules[0].Custom; cron != nil && cron.Type == "cron" {
					end := time.Now().UTC().Truncate(24 * time.Hour).Add(24*time.Hour - time.Minute)
					if got := e.Last.Wishes[0]; got.Hours != "0 0 * * * to 59 23 * * * UTC" || !got.Changes.Equal(end) {
						t.Errorf("the window is %q and changes at %v, want its metadata and %v", got.Hours, got.Changes, end)
					}
				}
				if w.count() != test.want || !strings.Contains(e.Last.Wishes[0].Note, test.note) {
					t.Errorf("%d replicas (%+v), want %d and a note with %q", w.count(), e.Last, test.want, test.note)
				}
			})
		})
	}
}

// An app without ingress and rules scales to zero and stays there. An app with ingress has an implicit rule.
func TestImplicitRules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := run(t, resource.Scale{Max: 10, Cooldown: time.Second, Polling: 30 * time.Second}, nil)
		w.look()
		w.demand <- map[string]link.Demand{revID.String(): {Arrivals: 35, Now: 35}}
		synctest.Wait()
		if n := w.count(); n != 4 {
			t.Errorf("35 requests: %d replicas, want 4 by the rule of 10 that nobody wrote", n)
		}
	})
}

// With Azure's behaviour the count goes up in steps, one every 15 s.
func TestAzure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := run(t, resource.Scale{Max: 20, Cooldown: 300 * time.Second, Polling: 30 * time.Second, Rules: http(1)}, map[string]string{"penstock.behaviour": "azure"})
		w.look()
		time.Sleep(500 * time.Millisecond) // between two decisions
		var counts []int
		for range 60 {
			w.demand <- map[string]link.Demand{revID.String(): {Arrivals: 12, Now: 5}}
			synctest.Wait()
			if n := w.count(); len(counts) == 0 || counts[len(counts)-1] != n {
				counts = append(counts, n)
			}
			time.Sleep(time.Second)
		}
		if want := []int{1, 4, 8, 12}; len(counts) != 4 || counts[1] != want[1] || counts[2] != want[2] || counts[3] != want[3] {
			t.Errorf("12 requests a second at a target of 1: counts %v, want %v", counts, want)
		}
	})
}

// Replicas that wait for room are explained with what they wait for. How long they waited does not count as a start.
func TestReplicasThatWaitForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := run(t, resource.Scale{Min: 3, Max: 3, Cooldown: time.Minute, Polling: time.Second}, nil)
		at := time.Now()
		one := resource.Replica{Name: "one", State: resource.ReplicaStarting, Created: at}
		two := resource.Replica{Name: "two", State: resource.ReplicaWaiting, Reason: "waiting for memory", Created: at}
		crashed := resource.Replica{Name: "three", State: resource.ReplicaWaiting, Reason: "ended", Restarts: 1, Created: at}
		w.Wanted(app, w.rev, nil)
		w.Wanted(app, w.rev, []resource.Replica{one, two, crashed})
		e, ok := w.Explain(revID)
		if !ok || e.Current != 3 || e.Held != 1 || e.HeldBy != "waiting for memory" {
			t.Errorf("got %+v, want one of three replicas held for memory", e)
		}
		time.Sleep(2 * time.Second)
		one.State, one.ReadySince = resource.ReplicaReady, time.Now()
		w.Wanted(app, w.rev, []resource.Replica{one, two, crashed})
		time.Sleep(time.Hour)
		two.State, two.Reason = resource.ReplicaStarting, ""
		w.Wanted(app, w.rev, []resource.Replica{one, two, crashed})
		two.State, two.ReadySince = resource.ReplicaReady, time.Now()
		w.Wanted(app, w.rev, []resource.Replica{one, two, crashed})
		synctest.Wait()
		if e, _ := w.Explain(revID); e.Held != 0 || e.HeldBy != "" || e.Learned.Start != 2*time.Second {
			t.Errorf("got %+v, want none held and a start of 2s, without the hour of the one that waited", e)
		}
	})
}

// After a restart of the platform, the time since a replica was created is not taken for the time that a start takes.
func TestReplicasThatAreFoundRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := run(t, resource.Scale{Min: 1, Max: 3, Cooldown: time.Minute, Polling: time.Second}, nil)
		found := resource.Replica{Name: "found", State: resource.ReplicaStarting, Created: time.Now().Add(-48 * time.Hour)}
		w.Wanted(app, w.rev, []resource.Replica{found})
		time.Sleep(time.Second)
		found.State, found.ReadySince = resource.ReplicaReady, time.Now()
		w.Wanted(app, w.rev, []resource.Replica{found})
		synctest.Wait()
		if e, _ := w.Explain(revID); e.Learned.Start != 0 {
			t.Errorf("learned that a start takes %v from a replica that was found running", e.Learned.Start)
		}
	})
}
