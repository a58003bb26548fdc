package arm_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"penstock/internal/accesslog"
	"penstock/internal/arm"
	"penstock/internal/logs"
	"penstock/internal/resource"
	"penstock/internal/runtimes"
)

var chatID = resource.AppID(subscription, "ml", "chat")

func (s *server) print(revision, replica string, lines ...string) {
	s.t.Helper()
	w := s.console.Writer(logs.Source{App: chatID, Revision: revision, Replica: replica, Container: "chat", Stream: "stdout"})
	for _, line := range lines {
		if _, err := fmt.Fprintln(w, line); err != nil {
			s.t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		s.t.Fatal(err)
	}
}

func TestLogStream(t *testing.T) {
	s := start(t)
	s.environment("e")
	s.app("chat", chat(nil))
	s.print("chat--1", "chat--1-a", "one", "two")
	s.print("chat--2", "chat--2-b", "three")

	app := base + "/containerApps/chat"
	logOf := func(a answer) string {
		var text []string
		for line := range strings.Lines(string(a.body)) {
			var l struct{ Log, ReplicaName string }
			if err := json.Unmarshal([]byte(line), &l); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			text = append(text, l.ReplicaName+" "+l.Log)
		}
		return strings.Join(text, ", ")
	}
	tests := map[string]string{
		app + "/logstream":                   "chat--1-a one, chat--1-a two, chat--2-b three",
		app + "/logstream?tailLines=1":       "chat--2-b three",
		app + "/logstream?tailLines=0":       "",
		app + "/logstream?revision=chat--1":  "chat--1-a one, chat--1-a two",
		app + "/logstream?replica=chat--2-b": "chat--2-b three",
		app + "/revisions/chat--1/replicas/chat--1-a/containers/chat/logstream?follow=false": "chat--1-a one, chat--1-a two",
		strings.Replace(app, "/providers/Microsoft.App", "", 1) + "/logstream?tailLines=1":   "chat--2-b three",
	}
	for path, want := range tests {
		if got := logOf(s.want(200, "GET", path, "")); got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
	if a := s.want(200, "GET", app+"/logstream?output=text&tailLines=1", ""); !strings.HasSuffix(string(a.body), "Z three\n") {
		t.Errorf("text: %q", a.body)
	}
	for _, query := range []string{"follow=maybe", "output=xml", "tailLines=-1", "tailLines=many"} {
		s.want(400, "GET", app+"/logstream?"+query, "")
	}
	s.want(404, "GET", base+"/containerApps/web/logstream", "")
}

func TestLogStreamFollows(t *testing.T) {
	s := start(t)
	s.environment("e")
	s.app("chat", chat(nil))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", s.URL+base+"/containerApps/chat/logstream?follow=true&output=text", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := s.Client().Do(r) // the headers come before there is a line
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for _, want := range []string{"one", "two"} {
		s.print("chat--1", "chat--1-a", want)
		if !lines.Scan() || !strings.HasSuffix(lines.Text(), " "+want) {
			t.Fatalf("got %q, %v; want %s", lines.Text(), lines.Err(), want)
		}
	}
}

func TestRequestStream(t *testing.T) {
	s := start(t)
	s.environment("e")
	s.app("chat", chat(nil))
	w, err := accesslog.NewWriter(s.requests, accesslog.Limits{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, revision := range []string{"chat--1", "chat--2"} {
		w.Add(&accesslog.Record{
			Start: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Client: "192.0.2.1", Forwarded: "192.0.2.1", Connection: 7, Proto: "HTTP/1.1",
			Host: "chat.example", Method: "POST", Path: "/v1?a=b", UserAgent: "test", RequestID: "id", App: chatID.String(),
			Revision: chatID.Child("revisions", revision).String(), Replica: revision + "-a", Upstream: "10.0.0.1:80", Attempts: 1, Status: 503,
			BytesIn: 3, BytesOut: 4, Flags: accesslog.FlagUpstreamTermination, Held: time.Millisecond, Duration: 1500 * time.Microsecond,
		})
	}
	ended, end := context.WithCancel(t.Context())
	end()
	w.Run(ended) // writes what there is

	path := base + "/containerApps/chat/requeststream"
	a := s.want(200, "GET", path+"?revision=chat--2", "")
	want := `{"TimeGenerated":"2026-01-02T03:04:05.0015Z","StartTime":"2026-01-02T03:04:05Z","Method":"POST","Path":"/v1?a=b","Authority":"chat.example","Protocol":"HTTP/1.1","UserAgent":"test","XForwardedFor":"192.0.2.1","BytesReceived":3,"BytesSent":4,"StatusCode":503,"ResponseCodeDetails":"upstream_reset_before_response_started{connection_termination}","ResponseFlags":"UC","RequestDuration":1,"RequestId":"id","ConnectionId":7,"ContainerAppName":"chat","RevisionName":"chat--2","ReplicaName":"chat--2-a","EnvironmentName":"e","UpstreamHost":"10.0.0.1:80","UpstreamRequestAttemptCount":1,"EnvoyPodName":"ingress-` + strconv.Itoa(os.Getpid()) + `","HeldMs":1,"FirstByteMs":0,"DurationMs":1.5}
`
	if got := string(a.body); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for query, want := range map[string]int{"": 2, "tailLines=1": 1, "tailLines=0": 0, "replica=chat--1-a": 1, "replica=none": 0} {
		if got := strings.Count(string(s.want(200, "GET", path+"?"+query, "").body), "\n"); got != want {
			t.Errorf("%q: got %d lines, want %d", query, got, want)
		}
	}
	if a := s.want(200, "GET", path+"?output=text&tailLines=1", ""); string(a.body) != "2026-01-02T03:04:05.0015Z POST /v1?a=b 503 1ms\n" {
		t.Errorf("text: %q", a.body)
	}
	s.want(400, "GET", path+"?tailLines=many", "")
	s.want(404, "GET", base+"/containerApps/web/requeststream", "")
}

func TestEventStream(t *testing.T) {
	s := start(t)
	s.environment("e")
	s.app("chat", chat(nil))
	at := time.Date(2024, 2, 19, 8, 16, 40, 0, time.UTC)
	s.system.Append(resource.Event{At: at, App: chatID, Revision: "chat--1", Replica: "chat--1-a", Reason: "PulledImage", Message: "Pulled image", Source: "Engine", Duration: 1500 * time.Millisecond})
	s.system.Append(resource.Event{At: at, App: chatID, Warning: true, Reason: "ProbeFailed", Message: "Probe failed"})
	a := s.want(200, "GET", strings.Replace(base, "/providers/Microsoft.App", "", 1)+"/containerApps/chat/eventstream?tailLines=2", "")
	want := `{"TimeStamp":"2024-02-19 08:16:40 +0000 UTC","Type":"Normal","ContainerAppName":"chat","RevisionName":"chat--1","ReplicaName":"chat--1-a","Msg":"Pulled image","Reason":"PulledImage","EventSource":"Engine","Count":1,"DurationMs":1500}
{"TimeStamp":"2024-02-19 08:16:40 +0000 UTC","Type":"Warning","ContainerAppName":"chat","RevisionName":"","ReplicaName":"","Msg":"Probe failed","Reason":"ProbeFailed","EventSource":"","Count":1}
`
	if string(a.body) != want {
		t.Errorf("got\n%swant\n%s", a.body, want)
	}
	if a := s.want(200, "GET", base+"/containerApps/chat/eventstream?output=text&tailLines=1", ""); string(a.body) != "2024-02-19 08:16:40 +0000 UTC Warning ProbeFailed Probe failed\n" {
		t.Errorf("text: %q", a.body)
	}
}

// The token of getAuthtoken opens the streams of its app, and nothing else.
func TestStreamToken(t *testing.T) {
	s := start(t)
	s.environment("e")
	s.app("chat", chat(nil))
	s.app("web", chat(nil))
	granted := s.want(200, "POST", base+"/containerApps/chat/getAuthtoken"+version, "")
	streamToken, _ := granted.get(t, "properties", "token").(string)
	if got := granted.get(t, "properties", "logStreamEndpoint"); got != s.URL {
		t.Errorf("streams are at %v", got)
	}
	if got := granted.get(t, "type"); got != "Microsoft.App/containerApps/accesstoken" {
		t.Errorf("its type is %v", got)
	}
	get := func(path, token string) int {
		r, err := http.NewRequestWithContext(t.Context(), "GET", s.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		return s.send(r).status
	}
	at, signature, _ := strings.Cut(streamToken, ".")
	for name, test := range map[string]struct {
		path, token string
		want        int
	}{
		"its logs":               {base + "/containerApps/chat/logstream", streamToken, 200},
		"its events, shouted":    {strings.ToUpper(base) + "/containerApps/CHAT/eventstream", streamToken, 200},
		"another app":            {base + "/containerApps/web/logstream", streamToken, 401},
		"the app itself":         {chatPath, streamToken, 401},
		"a later end":            {base + "/containerApps/chat/logstream", "9" + at + "." + signature, 401},
		"an end that has passed": {base + "/containerApps/chat/logstream", "1." + signature, 401},
		"another signature":      {base + "/containerApps/chat/logstream", at + ".AAAA", 401},
		"no signature":           {base + "/containerApps/chat/logstream", at, 401},
	} {
		if got := get(test.path, test.token); got != test.want {
			t.Errorf("%s: got %d, want %d", name, got, test.want)
		}
	}
}

func TestAuthenticate(t *testing.T) {
	handler := arm.Authenticate(token, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	for name, test := range map[string]struct {
		set  func(*http.Request)
		want int
	}{
		"a bearer token": {func(r *http.Request) { r.Header.Set("Authorization", "bearer "+token) }, 418},
		"a password":     {func(r *http.Request) { r.SetBasicAuth("docker", token) }, 418},
		"a wrong one":    {func(r *http.Request) { r.SetBasicAuth(token, "docker") }, 401},
		"nothing":        {func(*http.Request) {}, 401},
	} {
		r, err := http.NewRequestWithContext(t.Context(), "GET", "/v2/", nil)
		if err != nil {
			t.Fatal(err)
		}
		test.set(r)
		w := &recorder{header: http.Header{}}
		handler.ServeHTTP(w, r)
		if w.status != test.want || (w.status == 401) != (w.header.Get("WWW-Authenticate") != "") {
			t.Errorf("%s: got %d %v, want %d", name, w.status, w.header, test.want)
		}
		if got := w.header.Get("Docker-Distribution-Api-Version"); w.status == 401 && got != "registry/2.0" {
			t.Errorf("%s: the version of the registry's API is %q", name, got)
		}
	}
}

type recorder struct {
	header http.Header
	status int
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) Write(b []byte) (int, error) { return len(b), nil }
func (r *recorder) WriteHeader(status int)      { r.status = status }

// silent is an engine whose commands say nothing until their client has left.
type silent struct{ *server }

func (silent) Exec(ctx context.Context, _, _ string, _ runtimes.Exec) (int, error) {
	<-ctx.Done()
	return 0, context.Cause(ctx)
}

// A stream that has nothing to say sends empty lines, and a silent terminal pings, so that no proxy closes the connection.
func TestQuietStreams(t *testing.T) {
	s := start(t, func(s *server, cfg *arm.Config) { cfg.Quiet, cfg.Runtime = 5*time.Millisecond, silent{s} })
	s.environment("e")
	s.app("chat", chat(nil))
	path := base + "/containerApps/chat"
	for _, stream := range []string{"logstream", "eventstream", "requeststream"} {
		for _, output := range []string{"json", "text"} {
			t.Run(stream+" "+output, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				r, err := http.NewRequestWithContext(ctx, "GET", s.URL+path+"/"+stream+"?follow=true&tailLines=0&output="+output, nil)
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Authorization", "Bearer "+token)
				resp, err := s.Client().Do(r)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				lines := bufio.NewScanner(resp.Body)
				for range 3 {
					if !lines.Scan() || lines.Text() != "" {
						t.Fatalf("got %q, %v, want an empty line", lines.Text(), lines.Err())
					}
				}
				if stream != "logstream" {
					return
				}
				s.print("chat--1", "chat--1-a", "one", "two")
				var said []string
				for len(said) < 2 && lines.Scan() {
					if text := lines.Text(); text != "" {
						said = append(said, text)
					}
				}
				if len(said) != 2 || !strings.Contains(said[0], "one") || !strings.Contains(said[1], "two") {
					t.Errorf("got %q, %v, want both lines whole", said, lines.Err())
				}
			})
		}
	}
	t.Run("exec", func(t *testing.T) {
		revision := chatID.Child("revisions", "chat--1")
		if _, _, err := s.store.Revisions().Create(t.Context(), resource.Revision{ID: revision}, nil); err != nil {
			t.Fatal(err)
		}
		s.mu.Lock()
		s.replicas = []resource.Replica{{Name: "r", Revision: revision, Created: time.Now(), Containers: []resource.ContainerStatus{{Name: "chat"}}}}
		s.mu.Unlock()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		pings := make(chan struct{}, 3)
		conn, _, err := websocket.Dial(ctx, s.URL+path+"/revisions/chat--1/replicas/r/containers/chat/exec?command=sh", &websocket.DialOptions{
			HTTPClient: s.Client(), HTTPHeader: http.Header{"Authorization": {"Bearer " + token}},
			OnPingReceived: func(context.Context, []byte) bool {
				select {
				case pings <- struct{}{}:
				default:
				}
				return false // as from a client that is behind input which nobody reads
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.CloseNow()
		ended := make(chan error, 1)
		go func() {
			_, _, err := conn.Read(ctx)
			ended <- err
		}()
		for range 3 {
			select {
			case <-pings:
			case err := <-ended:
				t.Fatalf("the terminal ended: %v", err)
			}
		}
		conn.CloseNow()
		<-ended
	})
}
