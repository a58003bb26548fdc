package cli_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/spf13/pflag"

	"penstock/internal/cli"
)

const app = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/default/providers/Microsoft.App/containerApps"

// result is what a call of the program left.
type result struct {
	code           int
	stdout, stderr string
}

// run calls the program against a server of handlers, with the token "secret".
func run(t *testing.T, mux *http.ServeMux, args ...string) result {
	t.Helper()
	return runWith(t, nil, mux, args...)
}

// runWith is run with more variables.
func runWith(t *testing.T, variables map[string]string, mux *http.ServeMux, args ...string) result {
	t.Helper()
	var base string
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret" {
			http.Error(w, `{"error":{"code":"AuthenticationFailed","message":"no token"}}`, http.StatusUnauthorized)
			return
		}
		if r.Header.Get("X-Base") == "" {
			r.Header.Set("X-Base", base)
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	base = s.URL
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o644); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{"PENSTOCK_ENDPOINT": s.URL, "PENSTOCK_TOKEN": "secret", "PENSTOCK_CA": ca}
	maps.Copy(all, variables)
	return call(t, all, args...)
}

const manifest = `
name: a
properties:
  template:
    containers:
      - {name: a, image: "a:1", resources: {cpu: 0.5, memory: 1Gi}}
`

// call calls the program with a manifest on stdin.
func call(t *testing.T, variables map[string]string, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	env := &cli.Env{
		Stdin: strings.NewReader(manifest), Stdout: &stdout, Stderr: &stderr, Version: "test",
		Getenv:  func(name string) string { return variables[name] },
		Common:  func(fs *pflag.FlagSet) { fs.String("data", t.TempDir(), "") },
		Server:  func(*pflag.FlagSet) {},
		Running: func(string) (int, error) { return 0, nil },
		UID:     1000,
		Hosts:   cmp.Or(variables["HOSTS"], os.DevNull), Resolves: func(string) bool { return variables["RESOLVES"] != "no" },
		Settings: func(fs *pflag.FlagSet) (cli.Settings, error) {
			data, err := fs.GetString("data")
			return cli.Settings{Data: data, Runtime: cmp.Or(variables["RUNTIME"], "fake"), Domain: "localhost"}, err
		},
	}
	code := env.Main(t.Context(), args, nil)
	return result{code, stdout.String(), stderr.String()}
}

// status is answered by every server.
func status(mux *http.ServeMux) {
	mux.HandleFunc("GET /penstock/v1/status", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"instance":"0badcafe","httpPort":8080,"httpsPort":443}`)
	})
}

func TestListReadsAllPages(t *testing.T) {
	mux := http.NewServeMux()
	status(mux)
	mux.HandleFunc("GET "+app, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("api-version") == "" {
			t.Error("no api-version")
		}
		if r.URL.Query().Get("page") == "" {
			fmt.Fprintf(w, `{"value":[{"name":"one","properties":{"configuration":{"ingress":{"fqdn":"one.test","allowInsecure":true}}}}],"nextLink":%q}`,
				r.Header.Get("X-Base")+app+"?api-version=2025-01-01&page=2")
			return
		}
		fmt.Fprint(w, `{"value":[{"name":"two","properties":{"configuration":{"ingress":{"fqdn":"two.test"}}}}],"nextLink":null}`)
	})
	r := run(t, mux, "app", "list")
	if r.code != 0 || !strings.Contains(r.stdout, "http://one.test:8080") || !strings.Contains(r.stdout, "https://two.test\n") {
		t.Errorf("got %+v, want both apps with their URLs", r)
	}
	r = run(t, mux, "app", "list", "-o", "json")
	var docs []struct{ Name string }
	if err := json.Unmarshal([]byte(r.stdout), &docs); err != nil || len(docs) != 2 || r.stderr != "" {
		t.Errorf("json: got %+v, %v, want two documents and nothing else", r, err)
	}
}

func TestTokenIsNotSentElsewhere(t *testing.T) {
	var stolen atomic.Bool
	thief := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		stolen.Store(r.Header.Get("Authorization") != "")
	}))
	defer thief.Close()
	mux := http.NewServeMux()
	status(mux)
	mux.HandleFunc("GET "+app, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"value":[],"nextLink":%q}`, thief.URL+"/next")
	})
	r := run(t, mux, "app", "list")
	if r.code != 1 || !strings.Contains(r.stderr, "the token is not sent there") || stolen.Load() {
		t.Errorf("got %+v, stolen %v, want a refusal", r, stolen.Load())
	}
	if strings.Contains(r.stderr, "secret") {
		t.Errorf("the token is in the error: %s", r.stderr)
	}
}

func TestDeletionWaitsForItsEnd(t *testing.T) {
	tests := map[string]struct {
		header string
		end    func(w http.ResponseWriter)
		code   int
		says   string
	}{
		"by operation": {"Azure-AsyncOperation", func(w http.ResponseWriter) { fmt.Fprint(w, `{"status":"Succeeded"}`) }, 0, "deleted app a"},
		"operation fails": {"Azure-AsyncOperation", func(w http.ResponseWriter) {
			fmt.Fprint(w, `{"status":"Failed","error":{"code":"Stuck","message":"replica a-1 does not end"}}`)
		}, 1, "replica a-1 does not end"},
		"by location": {"Location", func(w http.ResponseWriter) { w.WriteHeader(http.StatusNoContent) }, 0, "deleted app a"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			mux := http.NewServeMux()
			mux.HandleFunc("GET "+app+"/a", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{}`) })
			mux.HandleFunc("DELETE "+app+"/a", func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set(tt.header, r.Header.Get("X-Base")+"/operation")
				w.WriteHeader(http.StatusAccepted)
			})
			var asked atomic.Int64
			mux.HandleFunc("GET /operation", func(w http.ResponseWriter, _ *http.Request) {
				if asked.Add(1) < 3 {
					w.WriteHeader(http.StatusAccepted)
					fmt.Fprint(w, `{"status":"InProgress"}`)
					return
				}
				tt.end(w)
			})
			r := run(t, mux, "app", "delete", "a")
			if r.code != tt.code || !strings.Contains(r.stderr, tt.says) || asked.Load() != 3 {
				t.Errorf("got %+v after %d questions, want code %d and %q", r, asked.Load(), tt.code, tt.says)
			}
		})
	}
}

func TestErrorsOfTheServer(t *testing.T) {
	tests := map[string]struct {
		status int
		body   string
		code   int
		says   []string
	}{
		"not found":    {404, `{"error":{"code":"ResourceNotFound","message":"app a is not here"}}`, 3, []string{"penstock: app a is not here"}},
		"no token":     {401, `{"error":{"code":"AuthenticationFailed","message":"wrong token"}}`, 1, []string{"wrong token", "try: check PENSTOCK_TOKEN"}},
		"many faults":  {400, `{"error":{"code":"Bad","message":"x; y","details":[{"target":"cpu","message":"x"},{"message":"y"}]}}`, 1, []string{"2 faults (Bad):", "  cpu: x", "  y"}},
		"one fault":    {400, `{"error":{"code":"Bad","message":"cpu: x","details":[{"target":"cpu","message":"x"}]}}`, 1, []string{"penstock: cpu: x"}},
		"not an error": {502, `<html>gateway</html>`, 1, []string{"502 Bad Gateway", "<html>gateway"}},
		"not JSON":     {200, `{`, 1, []string{"read answer"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			mux := http.NewServeMux()
			mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(tt.status)
				fmt.Fprint(w, tt.body)
			})
			r := run(t, mux, "app", "show", "a")
			if r.code != tt.code || r.stdout != "" {
				t.Errorf("got %+v, want code %d and nothing on stdout", r, tt.code)
			}
			for _, want := range tt.says {
				if !strings.Contains(r.stderr, want) {
					t.Errorf("got %q, want %q in it", r.stderr, want)
				}
			}
		})
	}
}

func TestLogs(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+app+"/a/logstream", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if q.Get("follow") != "true" || q.Get("tailLines") != "7" || q.Get("replica") != "a--1-x" || q.Get("output") != "json" {
			t.Errorf("asked for %v", q)
		}
		fmt.Fprintln(w, `{"TimeStamp":"2026-01-02T03:04:05.678Z","ReplicaName":"a--1-x","Log":"hello <world>"}`)
		fmt.Fprintln(w)
		fmt.Fprintln(w, `{"TimeStamp":"when","Log":"odd time"}`)
	})
	args := []string{"app", "logs", "a", "-f", "--tail", "7", "--replica", "a--1-x"}
	r := run(t, mux, args...)
	if r.code != 0 || !strings.Contains(r.stdout, " x  hello <world>\n") || !strings.Contains(r.stdout, "when   odd time\n") {
		t.Errorf("got %+v, want both lines", r)
	}
	r = run(t, mux, append(args, "-o", "json")...)
	if lines := strings.Split(strings.TrimSpace(r.stdout), "\n"); len(lines) != 2 || !json.Valid([]byte(lines[0])) {
		t.Errorf("json: got %q, want a document a line", r.stdout)
	}
	if r := run(t, mux, "app", "logs", "a", "--tail", "-1"); r.code != 2 {
		t.Errorf("got %+v, want code 2", r)
	}
}

func TestConnection(t *testing.T) {
	tests := map[string]struct {
		variables map[string]string
		says      string
	}{
		"no token":           {map[string]string{"PENSTOCK_ENDPOINT": "https://127.0.0.1:1"}, "PENSTOCK_TOKEN is not"},
		"plain http":         {map[string]string{"PENSTOCK_ENDPOINT": "http://127.0.0.1:1", "PENSTOCK_TOKEN": "x"}, "want https://HOST:PORT"},
		"nobody there":       {map[string]string{"PENSTOCK_ENDPOINT": "https://127.0.0.1:1", "PENSTOCK_TOKEN": "x"}, "no server responds at https://127.0.0.1:1"},
		"no authority":       {map[string]string{"PENSTOCK_ENDPOINT": "https://127.0.0.1:1", "PENSTOCK_TOKEN": "x", "PENSTOCK_CA": "lost.pem"}, "certificate authority: open lost.pem"},
		"no server here yet": {nil, "no server runs on data folder"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := call(t, tt.variables, "app", "list")
			if r.code != 1 || !strings.Contains(r.stderr, tt.says) {
				t.Errorf("got %+v, want code 1 and %q", r, tt.says)
			}
		})
	}
}

func TestUsageErrorsKeepTheirCause(t *testing.T) {
	cause := errors.New("cause")
	if !errors.Is(cli.UsageError(cause), cause) {
		t.Error("the cause is lost")
	}
}

func TestImages(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /penstock/v1/images", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"value":[{"name":"team/chat:1","digest":"sha256:0123456789abcdef","size":3221225472,"unique":1024,"shared":5242880,
			"layers":[{"sharedWith":2},{"sharedWith":0}]}]}`)
	})
	deleted := ""
	mux.HandleFunc("DELETE /penstock/v1/images/{name...}", func(w http.ResponseWriter, r *http.Request) {
		deleted = r.PathValue("name")
		w.WriteHeader(http.StatusNoContent)
	})
	r := run(t, mux, "image", "list")
	for _, want := range []string{"team/chat:1", "0123456789ab ", "3.0 GiB", "1.0 KiB", "5.0 MiB in 1"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("got %q, want %q in it", r.stdout, want)
		}
	}
	if r := run(t, mux, "image", "delete", "team/chat:1"); r.code != 0 || deleted != "team/chat:1" {
		t.Errorf("got %+v and %q deleted", r, deleted)
	}
}

// change is a server on which an app comes to the given state.
func change(t *testing.T, state string) *http.ServeMux {
	t.Helper()
	mux := http.NewServeMux()
	status(mux)
	mux.HandleFunc("PUT "+app+"/a", func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			Location   string
			Properties struct{ EnvironmentID string }
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil || body.Location == "" || !strings.HasSuffix(body.Properties.EnvironmentID, "/managedEnvironments/default") {
			t.Errorf("got %+v, %v, want the location and the environment filled in", body, err)
		}
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, `{"systemData":{"lastModifiedAt":"2026-01-02T03:04:05Z"}}`)
	})
	var asked atomic.Int64
	mux.HandleFunc("GET "+app+"/a", func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) < 3 {
			// The server has not made a revision for this write yet.
			fmt.Fprint(w, `{"properties":{"provisioningState":"InProgress","latestRevisionName":"a--0"}}`)
			return
		}
		fmt.Fprint(w, state)
	})
	mux.HandleFunc("GET "+app+"/a/eventstream", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, `{"TimeStamp":"2026-01-02 03:04:04 +0000 UTC","Type":"Normal","Reason":"OldRevision","Msg":"of an earlier change"}`)
		fmt.Fprintln(w, `{"TimeStamp":"2026-01-02 03:04:06 +0000 UTC","Type":"Normal","Reason":"PulledImage","Msg":"pulled a:1","DurationMs":1234.5}`)
		for range 3 {
			fmt.Fprintln(w, `{"TimeStamp":"2026-01-02 03:04:07 +0000 UTC","Type":"Warning","Reason":"ProbeFailed","Msg":"connection refused on port 9"}`)
		}
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	mux.HandleFunc("GET "+app+"/a/logstream", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, `{"TimeStamp":"2026-01-02T03:04:06Z","ReplicaName":"a--0-x","Log":"served as ever"}`)
		fmt.Fprintln(w, `{"TimeStamp":"2026-01-02T03:04:07Z","ReplicaName":"a--1-x","Log":"no such model"}`)
	})
	return mux
}

func TestUpShowsTheSteps(t *testing.T) {
	const ready = `{"properties":{"provisioningState":"Succeeded","latestRevisionName":"a--1","latestReadyRevisionName":"a--1",
		"configuration":{"ingress":{"fqdn":"a.test","allowInsecure":true}}}}`
	r := run(t, change(t, ready), "up", "-f", "-")
	if r.code != 0 || r.stdout != "http://a.test:8080\n" {
		t.Errorf("got %+v, want the URL alone on stdout", r)
	}
	if !strings.Contains(r.stderr, "PulledImage") || !strings.Contains(r.stderr, "1.235s") || strings.Contains(r.stderr, "OldRevision") {
		t.Errorf("got %q, want the steps of this change with their time", r.stderr)
	}
	if n := strings.Count(r.stderr, "connection refused"); n != 1 {
		t.Errorf("the same event is shown %d times, want once", n)
	}
	r = run(t, change(t, ready), "up", "-f", "-", "-o", "json")
	if r.code != 0 || !json.Valid([]byte(r.stdout)) || !strings.Contains(r.stdout, "latestRevisionName") {
		t.Errorf("json: got %+v, want the app", r)
	}
}

func TestUpSaysWhyAnAppIsNotReady(t *testing.T) {
	tests := map[string]struct {
		state string
		args  []string
		says  string
	}{
		"provisioning failed": {`{"properties":{"provisioningState":"Failed","provisioningError":"image a:1 is gone","latestRevisionName":"a--1"}}`, nil, "app a is not ready: image a:1 is gone"},
		"never ready":         {`{"properties":{"provisioningState":"InProgress"}}`, []string{"--timeout", "500ms"}, "gave up after 500ms; last: connection refused on port 9"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := run(t, change(t, tt.state), append([]string{"up", "-f", "-"}, tt.args...)...)
			if r.code != 1 || r.stdout != "" {
				t.Errorf("got %+v, want code 1 and no URL", r)
			}
			if strings.Contains(tt.state, "a--1") && strings.Contains(r.stderr, "served as ever") {
				t.Errorf("got %q, want no line of a replica of another revision", r.stderr)
			}
			for _, want := range []string{tt.says, "last lines of the app's console:", "x  no such model", "penstock app logs a"} {
				if !strings.Contains(r.stderr, want) {
					t.Errorf("got %q, want %q in it", r.stderr, want)
				}
			}
		})
	}
}

func TestContainersNeedRoot(t *testing.T) {
	r := call(t, map[string]string{"RUNTIME": "containerd"}, "up")
	if r.code != 1 || !strings.Contains(r.stderr, "penstock: a server that runs containers needs root, got a user with ID 1000\ntry: the same command with sudo\n") ||
		strings.Contains(r.stderr, "starting") {
		t.Errorf("got %+v", r)
	}
}

// A command that changes something says on which server, unless it is the usual one.
func TestChangesNameTheServer(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+app+"/a", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"properties":{}}`) })
	mux.HandleFunc("DELETE "+app+"/a", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	status(mux)
	r := run(t, mux, "app", "delete", "a")
	if r.code != 0 || strings.Count(r.stderr, "on the server at 127.0.0.1:") != 1 {
		t.Errorf("got %+v, want the server named once", r)
	}
	if r := run(t, mux, "app", "show", "a"); r.code != 0 || strings.Contains(r.stderr, "on the server") {
		t.Errorf("a command that only reads: got %+v", r)
	}
}
