package operate_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"

	"penstock/test/penstocktest"
)

// light is a mailbox app that goes to zero a second after its last request.
func light(name, ingress string) string {
	return fmt.Sprintf(`
name: %s
tags: {penstock.standby: none}
properties:
  configuration:
    activeRevisionsMode: Multiple
    ingress: {external: true, targetPort: 8080, allowInsecure: %v%s}
  template:
    containers:
      - name: mailbox
        image: mailbox:1
        resources: {cpu: 0.25, memory: 0.5Gi}
        probes: [{type: Liveness, httpGet: {path: /, port: 8080}, periodSeconds: 1}]
    scale: {minReplicas: 0, maxReplicas: 1, cooldownPeriod: 1, pollingInterval: 1}
`, name, !strings.Contains(ingress, "tcp"), ingress)
}

// starts is how many replicas an app has had.
func starts(t *testing.T, m *penstocktest.Machine, app string) int {
	t.Helper()
	return strings.Count(m.Must(t, "app", "events", app, "--tail", "1000"), "AssigningReplica")
}

// gone waits until an app has no replica.
func gone(t *testing.T, m *penstocktest.Machine, app string) {
	t.Helper()
	penstocktest.Until(t, 2*time.Minute, app+" is at zero", func() bool {
		out, _, code := m.Run(t, "replica", "list", app, "-o", "json")
		return code == 0 && strings.TrimSpace(out) == "[]"
	})
}

// revisionOf is the name of an app's only revision.
func revisionOf(t *testing.T, m *penstocktest.Machine, app string) string {
	t.Helper()
	var revisions []struct{ Name string }
	if err := json.Unmarshal([]byte(m.Must(t, "revision", "list", app, "-o", "json")), &revisions); err != nil || len(revisions) != 1 {
		t.Fatalf("revisions of %s: %v, %v", app, revisions, err)
	}
	return revisions[0].Name
}

// All that a client sends wakes an app at zero. To ask for its state, to look its name up, and a probe do not.
func TestWhatWakes(t *testing.T) {
	m := penstocktest.Boot(t)
	m.Image(t, "hello")
	m.ImageOf(t, "test", "e2e", "operate", "testdata", "mailbox")
	port := penstocktest.FreePort(t)
	const empty = "messages 0, done 0, empty 0\n"
	get := func(client *http.Client, url string) (string, error) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			return "", err
		}
		resp, err := client.Do(r)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return resp.Proto + " " + string(b), err
	}
	// Whatever is sent over the connection comes back in the answer.
	over := func(conn net.Conn, send string) (string, error) {
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			return "", err
		}
		if _, err := io.WriteString(conn, send); err != nil {
			return "", err
		}
		r := bufio.NewReader(conn)
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusSwitchingProtocols {
			b, err := io.ReadAll(resp.Body)
			return string(b), err
		}
		if _, err := io.WriteString(conn, "ping"); err != nil {
			return "", err
		}
		echoed := make([]byte, 4)
		_, err = io.ReadFull(r, echoed)
		return string(echoed), err
	}
	var clear http.Protocols
	clear.SetUnencryptedHTTP2(true)
	newest := &http.Client{Transport: &http.Transport{DialContext: m.Dial, Protocols: &clear}}
	defer newest.CloseIdleConnections()

	wakers := []struct {
		app, ingress string
		ask          func() (string, error)
		want         string
	}{
		{"plain", "", func() (string, error) { return get(m.Client, "http://plain.penstock.localhost/") }, "HTTP/1.1 " + empty},
		{"http2", "", func() (string, error) { return get(newest, "http://http2.penstock.localhost/") }, "HTTP/2.0 " + empty},
		{"grpc", ", transport: http2", func() (string, error) {
			dial := func(ctx context.Context, _ string) (net.Conn, error) { return m.Dial(ctx, "tcp", "") }
			conn, err := grpc.NewClient("passthrough:///grpc.penstock.localhost", grpc.WithContextDialer(dial), grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				return "", err
			}
			defer conn.Close()
			return "called", conn.Invoke(t.Context(), "/externalscaler.ExternalScaler/IsActive", &emptypb.Empty{}, &emptypb.Empty{})
		}, "called"},
		{"websocket", "", func() (string, error) {
			conn, err := m.Dial(t.Context(), "tcp", "")
			if err != nil {
				return "", err
			}
			return over(conn, "GET /echo HTTP/1.1\r\nHost: websocket.penstock.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
				"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
		}, "ping"},
		{"tcp", ", transport: tcp, exposedPort: " + port, func() (string, error) {
			conn, err := net.Dial("tcp", "127.0.0.1:"+port)
			if err != nil {
				return "", err
			}
			return over(conn, "GET / HTTP/1.1\r\nHost: any\r\nConnection: close\r\n\r\n")
		}, empty},
		{"neighbour", "", func() (string, error) {
			_, answer := m.Inside(t, "front", "http://neighbour/", "")
			return answer, nil
		}, empty},
		{"labelled", ", traffic: [{latestRevision: true, weight: 100, label: blue}]", func() (string, error) {
			return get(m.Client, "http://labelled---blue.penstock.localhost/")
		}, "HTTP/1.1 " + empty},
		{"revision", "", func() (string, error) {
			return get(m.Client, "http://"+revisionOf(t, m, "revision")+".penstock.localhost/")
		}, "HTTP/1.1 " + empty},
	}
	m.Apply(t, penstocktest.Neighbour("front", "", true))
	apps := []string{light("asleep", "")}
	for _, w := range wakers {
		apps = append(apps, light(w.app, w.ingress))
	}
	m.Must(t, "up", "-f", m.File(t, strings.Join(apps, "---")))

	gone(t, m, "asleep")
	revision := revisionOf(t, m, "asleep")
	for _, command := range []string{
		"app show asleep", "app list", "app explain asleep", "app events asleep", "app requests asleep", "app logs asleep",
		"app show asleep -o json", "revision list asleep", "revision show asleep " + revision, "replica list asleep", "top --once", "doctor",
	} {
		m.Run(t, strings.Fields(command)...)
	}
	if status, answer := m.Ask(t, http.MethodGet, "front", "/lookup?name=asleep", ""); status != http.StatusOK {
		t.Errorf("the name of an app at zero: got %d %q, want its address", status, answer)
	}

	for _, w := range wakers {
		t.Run(w.app, func(t *testing.T) {
			gone(t, m, w.app)
			before := starts(t, m, w.app)
			if got, err := w.ask(); got != w.want || err != nil {
				t.Errorf("got %q, %v; want %q", got, err, w.want)
			}
			penstocktest.Until(t, time.Minute, "its start is told", func() bool { return starts(t, m, w.app) == before+1 })
		})
	}
	// All others were started meanwhile, and it would have been before them.
	if n := starts(t, m, "asleep"); n != 1 {
		t.Errorf("it was started %d times, want only when it was made", n)
	}
}

// A request that arrives while the last replica goes is answered, at whatever moment.
func TestRequestsWhileTheLastReplicaGoes(t *testing.T) {
	m := penstocktest.Boot(t)
	m.Image(t, "hello")
	for _, behaviour := range []string{"fast", "azure"} {
		app := "going-" + behaviour
		m.Apply(t, strings.Replace(sleeper(app, "none", "you"), "tags: {", "tags: {penstock.behaviour: "+behaviour+", ", 1))
		ask := func(when string) {
			t.Helper()
			if status, answer := m.Ask(t, http.MethodGet, app, "/", ""); status != http.StatusOK || answer != "hello, you\n" {
				t.Errorf("%s, %s: got %d %q", behaviour, when, status, answer)
			}
		}
		ask("at first")
		began := time.Now()
		penstocktest.Until(t, 2*time.Minute, "its process has ended", func() bool {
			pids, _ := processes(t, m, app)
			return pids == ""
		})
		took := time.Since(began)
		before := starts(t, m, app)
		rounds := penstocktest.Times("PENSTOCK_GAPS", 2)
		for i := range rounds {
			early := time.Duration(20+25*i) * time.Millisecond
			ask("at zero, or on the way to it")
			time.Sleep(took - early) // where in the end of the replica the next request falls
			ask(fmt.Sprintf("%v before its process is expected to end", early))
		}
		t.Logf("%s: %v after the last request its process had ended; %d starts for %d requests around that", behaviour, took.Round(time.Millisecond), starts(t, m, app)-before, rounds)
	}
}

// A stream outlives its revision: one that is deactivated, and one that a newer one replaces. It ends by itself or, at the
// drain limit, with its replica.
func TestStreamsOutliveTheirRevision(t *testing.T) {
	m := penstocktest.Boot(t)
	m.Image(t, "hello")
	leave := map[string]func(app string){
		"deactivated": func(app string) { m.Must(t, "revision", "deactivate", app, revisionOf(t, m, app)) },
		"limited":     func(app string) { m.Must(t, "revision", "deactivate", app, revisionOf(t, m, app)) },
		"replaced": func(app string) {
			m.Apply(t, strings.Replace(penstocktest.Hello(app, 1), "image: hello:1", "image: hello:1\n        env: [{name: N, value: new}]", 1))
		},
	}
	const events = 60
	type ended struct {
		events int
		err    error
	}
	streams := map[string]chan ended{}
	for app, do := range leave {
		manifest := penstocktest.Hello(app, 1)
		switch app {
		case "limited":
			manifest = strings.Replace(manifest, "properties:", "tags: {penstock.drain-limit: 1s}\nproperties:", 1)
			fallthrough
		case "deactivated":
			manifest = strings.Replace(manifest, "configuration:", "configuration:\n    activeRevisionsMode: Multiple", 1)
		}
		m.Apply(t, manifest)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://%s.penstock.localhost/events?n=%d&ms=150", app, events), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := m.Client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		stream := make(chan ended, 1)
		streams[app] = stream
		go func() {
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			stream <- ended{strings.Count(string(body), "data: "), err}
		}()
		do(app)
	}
	for app, stream := range streams {
		end := <-stream
		whole := end.events == events && end.err == nil
		if want := app != "limited"; whole != want {
			t.Errorf("%s: the stream had %d events of %d, %v; want all of them: %v", app, end.events, events, end.err, want)
		}
		t.Logf("%s: %d events, %v", app, end.events, end.err)
	}
	gone(t, m, "deactivated")
	gone(t, m, "limited")
}
