package ingress_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"penstock/internal/accesslog"
	"penstock/internal/ingress"
	"penstock/internal/link"
	"penstock/internal/resource"
)

// asleep is a table of an app without replicas whose start clients can follow, which has come as far as stage.
func asleep(t testing.TB, stage resource.Stage) link.Table {
	table := set(replicas(), func(s *resource.Settings) { s.Progress = true })
	table.Revisions[0].Stage = stage
	table.Certificates = []link.Certificate{certificate(t, host)}
	return table
}

// awake is the same app with a replica.
func awake(t testing.TB, addr string) link.Table {
	table := asleep(t, "")
	table.Revisions[0].Replicas = []link.Replica{{Name: "r0", Addr: addr, Start: 20 * time.Millisecond, Load: 1500 * time.Millisecond}}
	return table
}

// following asks for the app's event stream over HTTP/1.1 or HTTP/2.
func (f *front) following(t testing.TB, version int, r *http.Request) (*http.Response, *bufio.Reader) {
	t.Helper()
	client := clientTo(t, f.plain)
	if version == 2 {
		client = clientTo(t, f.secure)
		transport := client.Transport.(*http.Transport)
		transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
		transport.ForceAttemptHTTP2 = true
		r.URL.Scheme = "https"
	}
	t.Cleanup(client.CloseIdleConnections)
	if r.Header.Get("Accept") == "" {
		r.Header.Set("Accept", "text/event-stream")
	}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.ProtoMajor != version {
		t.Fatalf("got HTTP/%d, want HTTP/%d", resp.ProtoMajor, version)
	}
	return resp, bufio.NewReader(resp.Body)
}

// expect reads comments and events until it has read text and the empty line after it.
func expect(t testing.TB, lines *bufio.Reader, texts ...string) {
	t.Helper()
	for _, text := range texts {
		line, err := lines.ReadString('\n')
		if err != nil || line != text+"\n" {
			t.Fatalf("got %q, %v, want %q", line, err, text)
		}
		if line, err = lines.ReadString('\n'); err != nil || line != "\n" {
			t.Fatalf("after %q: got %q, %v, want an empty line", text, line, err)
		}
	}
}

func TestClientsFollowAStart(t *testing.T) {
	for _, version := range []int{1, 2} {
		t.Run(fmt.Sprintf("HTTP/%d", version), func(t *testing.T) {
			var seen records
			f := serve(t, ingress.Config{Observe: seen.observe})
			f.Apply(asleep(t, ""))
			resp, lines := f.following(t, version, request(t, http.MethodPost, "/chat", strings.NewReader("question")))
			if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" || resp.Header.Get("X-Accel-Buffering") != "no" {
				t.Errorf("got %d %v, want an event stream that nginx does not buffer", resp.StatusCode, resp.Header)
			}
			expect(t, lines, ": queued")
			f.Apply(asleep(t, resource.StagePulled))
			expect(t, lines, ": pulled")
			f.Apply(asleep(t, resource.StageLoading))
			expect(t, lines, ": created", ": loading")
			f.Apply(asleep(t, resource.StagePulled)) // the program has ended, and is started again
			expect(t, lines, ": pulled")
			next := make(chan struct{})
			done := sync.OnceFunc(func() { close(next) })
			f.Apply(awake(t, app(t, func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
				fmt.Fprintf(w, "data: %s, coding %q\n\n", body, r.Header.Get("Accept-Encoding"))
				w.(http.Flusher).Flush()
				<-next
				io.WriteString(w, "data: done\n\n")
			})))
			t.Cleanup(done)
			expect(t, lines, ": created", ": loading", ": ready", `data: question, coding ""`)
			done() // the first event has come before the second was sent
			expect(t, lines, "data: done")
			if rest, err := io.ReadAll(lines); len(rest) > 0 || err != nil {
				t.Errorf("at the end: got %q, %v", rest, err)
			}
			rec := seen.last(t, 1)
			if rec.Status != 200 || rec.Flags != 0 || rec.Held <= 0 || rec.BytesOut < 100 {
				t.Errorf("got %+v, want a request that was held, with all bytes that the client got", rec)
			}
		})
	}
}

func TestStartsAreHeardOfWhileNothingChanges(t *testing.T) {
	f := serve(t, ingress.Config{Heartbeat: 10 * time.Millisecond})
	f.Apply(asleep(t, resource.StageLoading))
	_, lines := f.following(t, 1, request(t, http.MethodGet, "/", nil))
	expect(t, lines, ": queued", ": pulled", ": created", ": loading", ": loading", ": loading", ": loading")
	// A client that has left is noticed as it always is.
	f.waiting(t, 1)
}

// What cannot be passed on behind the head of an event stream becomes an event with the status that it would have had.
func TestFollowedStartsThatEndOtherwise(t *testing.T) {
	var zipped bytes.Buffer
	zip := gzip.NewWriter(&zipped)
	io.WriteString(zip, "data: 1\n\n")
	zip.Close()
	answers := func(status int, kind, coding, body string) func(*testing.T, *front) {
		return func(t *testing.T, f *front) {
			f.Apply(awake(t, app(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", kind)
				if coding != "" {
					w.Header().Set("Content-Encoding", coding)
				}
				w.WriteHeader(status)
				io.WriteString(w, body)
			})))
		}
	}
	refused := func(change func(*link.Revision)) func(*testing.T, *front) {
		return func(t *testing.T, f *front) {
			table := asleep(t, "")
			change(&table.Revisions[0])
			f.Apply(table)
		}
	}
	type details struct {
		Status                                 int
		Message, ContentType, Body, RetryAfter string
		Truncated                              bool
	}
	tests := map[string]struct {
		then func(*testing.T, *front)
		want details
		flag accesslog.Flags
	}{
		"the app reports an error": {
			answers(500, "application/json", "", `{"error":"out of memory"}`),
			details{Status: 500, Message: "the app answered 500 Internal Server Error", ContentType: "application/json", Body: `{"error":"out of memory"}`}, 0,
		},
		"the app answers without a body": {answers(204, "", "", ""), details{Status: 204, Message: "the app answered 204 No Content"}, 0},
		"the app answers with another type": {
			answers(200, "text/plain", "", "hello"),
			details{Status: 200, Message: `the app's response is of the type "text/plain", want text/event-stream`, ContentType: "text/plain", Body: "hello"}, 0,
		},
		"the app compresses": {
			answers(200, "text/event-stream", "gzip", zipped.String()),
			details{Status: 200, Message: `the app's response has the content encoding "gzip", which an event stream that has begun cannot have`, ContentType: "text/event-stream"}, 0,
		},
		"the app answers at length": {
			answers(400, "text/plain", "", strings.Repeat("x", 100<<10)),
			details{Status: 400, Message: "the app answered 400 Bad Request", ContentType: "text/plain", Body: strings.Repeat("x", 64<<10), Truncated: true}, 0,
		},
		"no replica can start": {
			refused(func(r *link.Revision) { r.Failed = "no such image" }),
			details{Status: 503, Message: "no replica of this app can be started"}, accesslog.FlagNoHealthyUpstream,
		},
		"the replica ends without an answer": {
			func(t *testing.T, f *front) {
				f.Apply(set(awake(t, raw(t, func(conn net.Conn, r *bufio.Reader) { http.ReadRequest(r) })), func(s *resource.Settings) { s.Retry = resource.RetryNone }))
			},
			details{Status: 503, Message: "upstream connect error or disconnect/reset before headers. reset reason: connection termination"}, accesslog.FlagUpstreamTermination,
		},
		"the app is deleted": {func(t *testing.T, f *front) {
			f.Apply(link.Table{Certificates: asleep(t, "").Certificates})
		}, details{Status: 404, Message: "this container app is stopped or does not exist"}, accesslog.FlagNoRoute},
	}
	for name, test := range tests {
		for _, version := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s, HTTP/%d", name, version), func(t *testing.T) {
				var seen records
				f := serve(t, ingress.Config{Observe: seen.observe})
				f.Apply(asleep(t, ""))
				_, lines := f.following(t, version, request(t, http.MethodGet, "/", nil))
				expect(t, lines, ": queued")
				test.then(t, f)
				body, err := io.ReadAll(lines)
				if err != nil {
					t.Fatalf("got %q, %v, want a response that ends", body, err)
				}
				_, event, _ := strings.Cut(string(body), "event: error\n")
				data, _ := strings.CutPrefix(event, "data: ")
				if !strings.HasSuffix(data, "\n\n") {
					t.Fatalf("got %q, want an event with the name error and data in one line", body)
				}
				var got struct{ Error details }
				if err := json.Unmarshal([]byte(data), &got); err != nil || got.Error != test.want {
					t.Errorf("got %+v, %v\nwant %+v", got.Error, err, test.want)
				}
				if rec := seen.last(t, 1); rec.Status != test.want.Status || rec.Flags&test.flag != test.flag {
					t.Errorf("record: got status %d and flags %v, want %d and %v", rec.Status, rec.Flags, test.want.Status, test.flag)
				}
			})
		}
	}
}

func TestFollowedStartTakesTooLong(t *testing.T) {
	f := serve(t, ingress.Config{})
	table := set(asleep(t, resource.StageLoading), func(s *resource.Settings) { s.QueueTimeout = 50 * time.Millisecond })
	table.Revisions[0].Blocked = "needs 4 GiB"
	f.Apply(table)
	_, lines := f.following(t, 1, request(t, http.MethodGet, "/", nil))
	body, err := io.ReadAll(lines)
	if want := `data: {"error":{"status":503,"message":"waited 50ms for a replica of this app: none became ready","retryAfter":"1"}}`; err != nil || !strings.Contains(string(body), want) {
		t.Errorf("got %q, %v, want it to end with %s", body, err, want)
	}
}

func TestClientThatLeavesStopsFollowing(t *testing.T) {
	for _, version := range []int{1, 2} {
		var seen records
		f := serve(t, ingress.Config{Observe: seen.observe})
		f.Apply(asleep(t, ""))
		ctx, leave := context.WithCancel(t.Context())
		_, lines := f.following(t, version, request(t, http.MethodPost, "/", strings.NewReader("question")).WithContext(ctx))
		expect(t, lines, ": queued")
		f.waiting(t, 1)
		leave()
		f.waiting(t, 0)
		if rec := seen.last(t, 1); rec.Flags&accesslog.FlagDownstreamTermination == 0 {
			t.Errorf("HTTP/%d: got flags %v, want the client's leaving", version, rec.Flags)
		}
	}
}

// A response begins early only where the app could only answer with an event stream, and only while a replica starts.
func TestWhoDoesNotFollowAStart(t *testing.T) {
	tests := map[string]struct {
		method string
		header http.Header
		change func(*resource.Settings)
	}{
		"not wanted by the app":            {"GET", http.Header{"Accept": {"text/event-stream"}}, func(s *resource.Settings) { s.Progress = false }},
		"other types are accepted":         {"GET", http.Header{"Accept": {"application/json, text/event-stream"}}, nil},
		"other types are accepted, second": {"GET", http.Header{"Accept": {"text/event-stream", "*/*"}}, nil},
		"nothing is said":                  {"GET", http.Header{"Accept": {""}}, nil},
		"HEAD":                             {"HEAD", http.Header{"Accept": {"text/event-stream"}}, nil},
		"gRPC":                             {"POST", http.Header{"Accept": {"text/event-stream"}, "Content-Type": {"application/grpc"}}, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := serve(t, ingress.Config{})
			table := asleep(t, resource.StageLoading)
			if test.change != nil {
				set(table, test.change)
			}
			f.Apply(table)
			r := request(t, test.method, "/", nil)
			r.Header = test.header
			answers := make(chan *http.Response, 1)
			go func() {
				resp, err := f.client.Do(r)
				if err != nil {
					t.Error(err)
				}
				answers <- resp
			}()
			f.waiting(t, 1)
			f.Apply(awake(t, app(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusTeapot) })))
			if resp := receive(t, "answer", answers); resp == nil || resp.StatusCode != http.StatusTeapot {
				t.Errorf("got %v, want the app's own response", resp)
			} else {
				resp.Body.Close()
			}
		})
	}
	t.Run("with a replica", func(t *testing.T) {
		f := serve(t, ingress.Config{})
		f.Apply(awake(t, app(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusTeapot) })))
		r := request(t, "GET", "/", nil)
		r.Header.Set("Accept", "text/event-stream")
		resp, body := f.do(t, r)
		want(t, resp, body, http.StatusTeapot, "")
	})
}

// The client needs no more than what it has sent so far, so it gets the head of the response without having sent its body.
func TestFollowedStartWithALargeBody(t *testing.T) {
	f := serve(t, ingress.Config{})
	f.Apply(asleep(t, ""))
	in, out := io.Pipe()
	_, lines := f.following(t, 1, request(t, http.MethodPost, "/", in))
	expect(t, lines, ": queued")
	f.Apply(awake(t, app(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(w, "data: %d\n\n", n)
	})))
	large := bytes.Repeat([]byte("x"), 1<<20)
	for range 3 {
		if _, err := out.Write(large); err != nil {
			t.Fatal(err)
		}
	}
	out.Close()
	expect(t, lines, ": pulled", ": created", ": loading", ": ready", "data: 3145728")
}
