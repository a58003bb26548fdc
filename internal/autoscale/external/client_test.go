package external

import (
	"context"
	"errors"
	"math"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"penstock/internal/autoscale/external/externaltest"
)

type metrics = []externaltest.Metric

func metric(name string, whole int64, exact float64) externaltest.Metric {
	return externaltest.Metric{Name: name, Whole: whole, Exact: exact}
}

// scaler starts an external scaler and returns a client of it.
func scaler(t *testing.T, a externaltest.Answers) (*externaltest.Server, *Client) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := externaltest.New(a)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Serve(ctx, l) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return s, client(t, l.Addr().String())
}

func client(t *testing.T, address string) *Client {
	t.Helper()
	var d net.Dialer
	c, err := New(Config{
		Address: address, Ref: Ref{Name: "chat--1", Namespace: "prod", Metadata: map[string]string{"scalerAddress": address, "queue": "mail", "empty": ""}},
		Dial: func(ctx context.Context, address string) (net.Conn, error) { return d.DialContext(ctx, "tcp", address) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestAScalerIsAskedWithTheMetadataOfItsRule(t *testing.T) {
	s, c := scaler(t, externaltest.Queue(42, 10))
	active, err := c.IsActive(t.Context())
	if err != nil || !active {
		t.Errorf("IsActive: got %v, %v, want true", active, err)
	}
	m, err := c.Measure(t.Context())
	if err != nil || m != (Measure{"queue", 42, 10}) {
		t.Errorf("got %+v, %v, want a value of 42 and a target of 10", m, err)
	}
	if got := s.Metadata(); got["queue"] != "mail" || len(got) != 3 {
		t.Errorf("the scaler got the metadata %v", got)
	}
}

func TestMeasure(t *testing.T) {
	one := func(whole int64, exact float64) externaltest.Answers {
		return externaltest.Answers{Specs: metrics{metric("m", 10, 0)}, Values: metrics{metric("m", whole, exact)}}
	}
	target := func(whole int64, exact float64) externaltest.Answers {
		return externaltest.Answers{Specs: metrics{metric("m", whole, exact)}, Values: metrics{metric("m", 1, 0)}}
	}
	many := make(metrics, maxFigures+1)
	tests := map[string]struct {
		answers externaltest.Answers
		want    Measure
		err     string
	}{
		"fractions":                  {externaltest.Answers{Specs: metrics{metric("m", 0, 2.5)}, Values: metrics{metric("m", 0, 7.5)}}, Measure{"m", 7.5, 2.5}, ""},
		"nothing to do":              {one(0, 0), Measure{"m", 0, 10}, ""},
		"the largest of two metrics": {externaltest.Answers{Specs: metrics{metric("a", 10, 0), metric("b", 1, 0)}, Values: metrics{metric("a", 40, 0), metric("b", 5, 0)}}, Measure{"b", 5, 1}, ""},
		"several values are added":   {externaltest.Answers{Specs: metrics{metric("m", 10, 0)}, Values: metrics{metric("m", 3, 0), metric("m", 4, 0)}}, Measure{"m", 7, 10}, ""},
		"NaN":                        {one(0, math.NaN()), Measure{}, "want a value from 0 to 9.22e+15, got NaN"},
		"infinite":                   {one(0, math.Inf(1)), Measure{}, "got +Inf"},
		"2^63":                       {one(0, 1<<63), Measure{}, "got 9.223372036854776e+18"},
		"negative":                   {one(-3, 0), Measure{}, "got -3"},
		"negative with fractions":    {one(3, -0.5), Measure{}, "got -0.5"},
		"target 0":                   {target(0, 0), Measure{}, `target of metric "m": want a number above 0 and up to 9.22e+15, got 0`},
		"target NaN":                 {target(10, math.NaN()), Measure{}, "got NaN"},
		"negative target":            {target(-1, 0), Measure{}, "got -1"},
		"no metric":                  {externaltest.Answers{}, Measure{}, "GetMetricSpec: want a metric and its target, got none"},
		"no value":                   {externaltest.Answers{Specs: metrics{metric("m", 1, 0)}}, Measure{}, `GetMetrics: metric "m": want a value, got none`},
		"too many metrics":           {externaltest.Answers{Specs: many}, Measure{}, "want at most 100 metrics"},
		"a large response":           {externaltest.Answers{Specs: metrics{metric(strings.Repeat("x", maxMessage), 1, 0)}}, Measure{}, "received message larger than max"},
		"an error with line ends":    {externaltest.Answers{Err: status.Error(codes.Internal, "no\x1b[2Jqueue\n"+strings.Repeat("y", 999))}, Measure{}, "GetMetricSpec: Internal: no [2Jqueue yyy"},
		"a call that is not there":   {externaltest.Answers{Err: status.Error(codes.Unimplemented, "")}, Measure{}, "does not implement KEDA's external scaler"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, c := scaler(t, test.answers)
			got, err := c.Measure(t.Context())
			if test.err == "" {
				if err != nil || got != test.want {
					t.Errorf("got %+v, %v, want %+v", got, err, test.want)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Fatalf("got %+v, %v, want an error with %q", got, err, test.err)
			}
			if len(err.Error()) > 500 || strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("the error cannot be printed: %q", err)
			}
		})
	}
}

func TestScalersThatCannotBeReached(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	away := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := client(t, away).IsActive(t.Context()); err == nil || !strings.Contains(err.Error(), "IsActive: cannot be reached") || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("a scaler that is away: got %v", err)
	}
	// A server that accepts connections and says nothing.
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	began := time.Now()
	if _, err := client(t, silent.Addr().String()).IsActive(t.Context()); err == nil {
		t.Error("a silent server: got an answer")
	}
	_, hanging := scaler(t, externaltest.Answers{Hang: true})
	if _, err := hanging.IsActive(t.Context()); err == nil || !strings.Contains(err.Error(), "no answer within 5s") {
		t.Errorf("a scaler that hangs: got %v", err)
	}
	if took := time.Since(began); took < 2*CallTimeout-time.Second || took > time.Minute {
		t.Errorf("the two calls took %v, want about %v each", took, CallTimeout)
	}
}

func TestPushesArriveInOrder(t *testing.T) {
	a := externaltest.Queue(1, 1)
	a.Flood = 10_000
	s, c := scaler(t, a)
	ctx, cancel := context.WithCancelCause(t.Context())
	var wg sync.WaitGroup
	var n atomic.Int64
	var last atomic.Bool
	stopped := errors.New("the rule is gone")
	wg.Go(func() {
		if err := c.Stream(ctx, func(active bool) { last.Store(active); n.Add(1) }); !errors.Is(err, stopped) {
			t.Errorf("the stream ended with %v", err)
		}
	})
	until(t, "10,000 pushes", func() bool { return n.Load() == 10_000 })
	if !last.Load() {
		t.Error("the last push said inactive, want active")
	}
	s.Set(externaltest.Queue(0, 1))
	until(t, "one more push", func() bool { return n.Load() == 10_001 && !last.Load() })
	cancel(stopped)
	wg.Wait()
	until(t, "the scaler sees the end", func() bool { return s.Streams() == 0 })
}

func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after a minute: %s is not seen", what)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("\x08\x01"))
	f.Add([]byte("\x0a\x05\x0a\x01m\x10\x0a"))
	f.Add([]byte("\x0a\x0c\x0a\x01m\x19\x00\x00\x00\x00\x00\x00\xf8\x7f"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var a activity
		_ = a.decode(b)
		var list figures
		if err := list.decode(b); err == nil {
			for _, one := range list {
				_ = one.value()
				if s := name(one); strings.ContainsAny(s, "\n\x1b") {
					t.Errorf("the name %q cannot be printed", one.name)
				}
			}
			if len(list) > maxFigures {
				t.Errorf("%d metrics", len(list))
			}
		}
	})
}
