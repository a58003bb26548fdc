package ingress_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"penstock/internal/accesslog"
	"penstock/internal/ingress"
	"penstock/internal/resource"
)

const connectFailure = "upstream connect error or disconnect/reset before headers. retried and the latest reset reason: " +
	"remote connection failure, transport failure reason: delayed connect error: Connection refused"

// refusing is an address that nobody listens on.
func refusing(t testing.TB) string {
	ln := listen(t)
	ln.Close()
	return ln.Addr().String()
}

func TestRefusedConnection(t *testing.T) {
	t.Parallel()
	var rec records
	f := serve(t, ingress.Config{Observe: rec.observe})
	f.Apply(replicas(refusing(t)))
	began := time.Now()
	resp, body := f.do(t, request(t, http.MethodPost, "/", strings.NewReader("body")))
	want(t, resp, body, 503, connectFailure)
	if took := time.Since(began); took < 400*time.Millisecond {
		t.Errorf("given up after %v, want some tries first", took)
	}
	if got := rec.last(t, 1); got.Flags != accesslog.FlagConnectFailure {
		t.Errorf("flags: got %v, want UF", got.Flags)
	}
}

func TestRefusedConnectionGoesToAnotherReplica(t *testing.T) {
	ok := app(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	f := serve(t, ingress.Config{})
	f.Apply(set(replicas(refusing(t), refusing(t), refusing(t), ok), func(s *resource.Settings) { s.Retry = resource.RetryNone }))
	for range 3 {
		resp, body := f.do(t, request(t, http.MethodPost, "/", strings.NewReader("body")))
		want(t, resp, body, 200, "body")
	}
	if got := f.Stats().Retried; got != 3 {
		t.Errorf("tries on refusing replicas: got %d, want 3, as they are avoided then", got)
	}
}

// A replica that dies leaves the table a moment later. What came in between is held for the next one.
func TestRequestOutlivesItsReplica(t *testing.T) {
	f := serve(t, ingress.Config{})
	f.Apply(replicas(refusing(t)))
	answers := make(chan string, 1)
	go func() {
		_, body := f.do(t, request(t, http.MethodPost, "/", strings.NewReader("body")))
		answers <- body
	}()
	until(t, "a second try", func() bool { return f.Stats().Retried > 0 })
	f.Apply(replicas())
	f.waiting(t, 1)
	f.Apply(replicas(app(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })))
	if got := receive(t, "answer", answers); got != "body" {
		t.Errorf("got %q, want body", got)
	}
}

// dying takes requests and ends the connection without an answer, as long as left is above 0; then it echoes.
func dying(t testing.TB, left, taken *atomic.Int64) string {
	return raw(t, func(conn net.Conn, r *bufio.Reader) {
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			body, err := io.ReadAll(req.Body)
			if err != nil {
				return
			}
			taken.Add(1)
			if left.Add(-1) >= 0 {
				return
			}
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		}
	})
}

func TestRequestThatWasTaken(t *testing.T) {
	const ended = "upstream connect error or disconnect/reset before headers. reset reason: connection termination"
	large, huge := strings.Repeat("x", 500<<10), strings.Repeat("x", 3<<20)
	tests := map[string]struct {
		method, body string
		retry        resource.Retry
		deaths       int64
		status       int
		taken        int64
	}{
		"GET":                            {"GET", "", resource.RetryIdempotent, 1, 200, 2},
		"PUT":                            {"PUT", "small", resource.RetryIdempotent, 1, 200, 2},
		"PUT of a large body":            {"PUT", large, resource.RetryIdempotent, 1, 200, 2},
		"PUT of more than is kept":       {"PUT", huge, resource.RetryIdempotent, 1, 503, 1},
		"POST":                           {"POST", "small", resource.RetryIdempotent, 1, 503, 1},
		"POST, all":                      {"POST", "small", resource.RetryAll, 1, 200, 2},
		"POST of a large body, all":      {"POST", large, resource.RetryAll, 1, 200, 2},
		"GET, none":                      {"GET", "", resource.RetryNone, 1, 503, 1},
		"GET that brings replicas down":  {"GET", "", resource.RetryIdempotent, 10, 503, 2},
		"POST that brings replicas down": {"POST", "small", resource.RetryAll, 10, 503, 2},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var left, taken atomic.Int64
			left.Store(test.deaths)
			f := serve(t, ingress.Config{})
			f.Apply(set(replicas(dying(t, &left, &taken)), func(s *resource.Settings) { s.Retry = test.retry }))
			resp, body := f.do(t, request(t, test.method, "/", strings.NewReader(test.body)))
			text := test.body
			if test.status != 200 {
				text = strings.Split(ended, "reset reason")[0]
			}
			if resp.StatusCode != test.status || !strings.HasPrefix(body, text) || taken.Load() != test.taken {
				t.Errorf("got %d %.100q after %d times, want %d %.100q after %d", resp.StatusCode, body, taken.Load(), test.status, text, test.taken)
			}
		})
	}
}

// Bytes of a response came, so the request is not sent again even if it could be.
func TestPartOfAResponseIsNoReasonToRepeat(t *testing.T) {
	f := serve(t, ingress.Config{})
	f.Apply(replicas(says(t, "HTTP/1.1 2")))
	resp, body := f.get(t, "/")
	want(t, resp, body, 503, "connection termination")
	if got := f.Stats().Retried; got != 0 {
		t.Errorf("got %d more tries, want none", got)
	}
}

// The classic: the replica closes an idle connection while a request is on its way, here at the worst of moments, time
// and again. Each POST is taken once or answered with 503, and with retry=all each is taken once.
func TestConnectionClosedBetweenRequests(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{"small body": "body", "large body": strings.Repeat("x", 200<<10)} {
		for _, retry := range []resource.Retry{resource.RetryIdempotent, resource.RetryAll} {
			t.Run(name+", "+string(retry), func(t *testing.T) {
				var taken, lost atomic.Int64
				f := serve(t, ingress.Config{})
				f.Apply(set(replicas(closesAfterTwo(t, &taken)), func(s *resource.Settings) { s.Retry = retry }))
				const clients, each = 4, 100
				var wg sync.WaitGroup
				for range clients {
					wg.Go(func() {
						for range each {
							resp, err := f.client.Do(request(t, http.MethodPost, "/", bytes.NewReader([]byte(body))))
							if err != nil {
								t.Error(err)
								return
							}
							if resp.StatusCode != 200 {
								lost.Add(1)
							}
							io.Copy(io.Discard, resp.Body)
							resp.Body.Close()
						}
					})
				}
				wg.Wait()
				got := f.Stats()
				t.Logf("%d on open connections, %d tried again, %d answered 503", got.Reused, got.Retried, lost.Load())
				if taken.Load()+lost.Load() != clients*each {
					t.Errorf("taken %d times and lost %d times, want %d in all", taken.Load(), lost.Load(), clients*each)
				}
				if retry == resource.RetryAll && lost.Load() > 0 {
					t.Errorf("lost %d, want none", lost.Load())
				}
			})
		}
	}
}

// closesAfterTwo closes each connection shortly after its second response, and does not say so.
func closesAfterTwo(t testing.TB, taken *atomic.Int64) string {
	return raw(t, func(conn net.Conn, r *bufio.Reader) {
		for n := range 2 {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				return
			}
			taken.Add(1)
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			if n == 1 {
				time.Sleep(time.Duration(taken.Load()%10) * 10 * time.Microsecond) // the moment, not a wait
			}
		}
	})
}

// noErrors fails the test for what is logged as an error, such as a panic.
type noErrors struct {
	slog.Handler
	t testing.TB
}

func (noErrors) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelError }

func (h noErrors) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		h.t.Errorf("logged: %s %s", r.Message, a)
		return true
	})
	return nil
}

// What a replica did not want of a body is not taken for the next request, and the client gets to read the answer.
func TestRestOfAnUnwantedBody(t *testing.T) {
	t.Parallel()
	var reached atomic.Int64
	f := serve(t, ingress.Config{Log: slog.New(noErrors{slog.DiscardHandler, t})})
	f.Apply(replicas(raw(t, func(conn net.Conn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		if req.URL.Path == "/evil" {
			reached.Add(1)
		}
		if req.URL.Path == "/early" {
			io.WriteString(conn, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
		}
		// and is gone
	})))
	const evil = "GET /evil HTTP/1.1\r\nHost: app.test\r\n\r\n"
	for path, status := range map[string]int{"/early": 413, "/never": 503} {
		for size, framing := range map[int]string{
			40 << 10:  fmt.Sprintf("Content-Length: %d\r\n\r\n", 80<<10),
			300 << 10: "Transfer-Encoding: chunked\r\n\r\n100000\r\n",
		} {
			conn, r := f.dial(t, "POST "+path+" HTTP/1.1\r\nHost: app.test\r\n"+framing+strings.Repeat("x", 40<<10))
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, resp.Body)
			if resp.StatusCode != status || !resp.Close {
				t.Errorf("%s: got %d, close %v, want %d and the end of the connection", path, resp.StatusCode, resp.Close, status)
			}
			io.WriteString(conn, strings.Repeat(evil, size/len(evil)))
			if rest, _ := io.ReadAll(r); len(rest) > 0 {
				t.Errorf("%s: after the answer: got %q", path, rest)
			}
		}
	}
	if reached.Load() > 0 {
		t.Errorf("part of a body reached the replica as a request, %d times", reached.Load())
	}
}

// A trailer may come in the moment in which the request's head, that announces it, is sent to another replica.
func TestTrailerThatComesDuringAnotherTry(t *testing.T) {
	f := serve(t, ingress.Config{})
	var seen sync.Map
	closing := make(chan struct{}, 1)
	talk := func(conn net.Conn, r *bufio.Reader) {
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			if _, again := seen.Swap(req.URL.Path, true); !again {
				closing <- struct{}{}
				return
			}
			io.Copy(io.Discard, req.Body)
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	}
	f.Apply(replicas(raw(t, talk), raw(t, talk), raw(t, talk)))
	var announced strings.Builder // so much that it takes its time
	for i := range 5000 {
		fmt.Fprintf(&announced, "X%d,", i)
	}
	for i := range 200 {
		conn, r := f.dial(t, fmt.Sprintf("PUT /%d HTTP/1.1\r\nHost: %s\r\nTransfer-Encoding: chunked\r\nTrailer: %sX-A\r\n\r\n", i, host, announced.String()))
		receive(t, "the first try", closing)
		for range i {
			runtime.Gosched()
		}
		io.WriteString(conn, "0\r\nX-A: b\r\n\r\n")
		if _, err := http.ReadResponse(r, nil); err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
}
