package cli_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	userHosts = "127.0.0.1\tlocalhost\n# BEGIN of what others wrote\n192.0.2.1 example.test"
	block     = "# BEGIN penstock 0badcafe\n127.0.0.1 a.test\n127.0.0.1 b.test\n# END penstock 0badcafe\n"
	readyApp  = `{"name":"a","tags":{%s},"properties":{"provisioningState":"Succeeded","latestRevisionName":"a--1","latestReadyRevisionName":"a--1",
		"configuration":{"ingress":{"fqdn":"a.test","external":true,"allowInsecure":true}}}}`
)

// named is a server whose app a is ready, and which has these apps.
func named(t *testing.T, tags, apps string) *http.ServeMux {
	mux := change(t, fmt.Sprintf(readyApp, tags))
	mux.HandleFunc("GET /subscriptions/00000000-0000-0000-0000-000000000000/providers/Microsoft.App/containerApps", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"value":[%s]}`, apps)
	})
	mux.HandleFunc("DELETE "+app+"/a", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	return mux
}

func withIngress(ingress string) string {
	return `{"properties":{"configuration":{"ingress":` + ingress + `}}}`
}

const (
	appA = `{"fqdn":"a.test","external":true}`
	appB = `{"fqdn":"b.test","external":true}`
)

func hostsIn(t *testing.T, content string) (path string, read func() string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path, func() string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
}

// The names of apps come and go in the file of hosts, and the rest of it stays as it is.
func TestUpHosts(t *testing.T) {
	path, read := hostsIn(t, userHosts)
	variables := map[string]string{"HOSTS": path, "RESOLVES": "yes"}
	all := strings.Join([]string{
		withIngress(appB), withIngress(appA), `{"properties":{"configuration":{}}}`,
		withIngress(`{"fqdn":"c.internal.test","external":false}`), withIngress(`{"fqdn":"d.test","external":true,"transport":"Tcp"}`),
	}, ",")

	// Nobody asked for it.
	if r := runWith(t, variables, named(t, "", all), "up", "-f", "-"); r.code != 0 || read() != userHosts {
		t.Errorf("without --hosts: got %+v, %q", r, read())
	}
	r := runWith(t, variables, named(t, "", all), "up", "-f", "-", "--hosts")
	if r.code != 0 || read() != userHosts+"\n"+block || !strings.Contains(r.stderr, path+" has the names of 2 apps") {
		t.Errorf("got %+v, %q", r, read())
	}
	// From then on it is kept up to date.
	if r := runWith(t, variables, named(t, "", withIngress(appB)), "app", "delete", "a"); r.code != 0 || strings.Contains(read(), "a.test") || !strings.Contains(read(), "b.test") {
		t.Errorf("after a deletion: got %+v, %q", r, read())
	}
	if r := runWith(t, variables, named(t, "", all), "up", "-f", "-"); r.code != 0 || read() != userHosts+"\n"+block {
		t.Errorf("after another app: got %+v, %q", r, read())
	}
	// The file's mode is kept, and another server's block too.
	other := strings.ReplaceAll(block, "0badcafe", "00000001")
	if err := os.WriteFile(path, []byte(other+block+userHosts), 0o644); err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	if err := os.WriteFile(filepath.Join(data, "instance"), []byte("0badcafe\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r = call(t, variables, "down", "--data", data)
	info, err := os.Stat(path)
	if r.code != 0 || read() != other+userHosts || err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("down: got %+v, %q, %v, %v", r, read(), info, err)
	}
}

func TestUpHostsRefused(t *testing.T) {
	path, read := hostsIn(t, "# BEGIN penstock 0badcafe\n127.0.0.1 a.test\n")
	r := runWith(t, map[string]string{"HOSTS": path}, named(t, "", withIngress(appA)), "up", "-f", "-", "--hosts")
	if r.code != 1 || !strings.Contains(r.stderr, `the line "# END penstock 0badcafe" is missing`) || !strings.HasPrefix(read(), "# BEGIN") {
		t.Errorf("a damaged block: got %+v", r)
	}
	lost := filepath.Join(t.TempDir(), "lost")
	r = runWith(t, map[string]string{"HOSTS": lost}, named(t, "", withIngress(appA)), "up", "-f", "-", "--hosts")
	if r.code != 1 || !strings.Contains(r.stderr, "lost: no such file") || !strings.Contains(r.stderr, "penstock.host-port") {
		t.Errorf("no file: got %+v", r)
	}
}

// A link is followed: some systems keep the file elsewhere.
func TestUpHostsFollowsALink(t *testing.T) {
	path, read := hostsIn(t, "")
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	r := runWith(t, map[string]string{"HOSTS": link}, named(t, "", withIngress(appA)+","+withIngress(appB)), "up", "-f", "-", "--hosts")
	if _, err := os.Readlink(link); r.code != 0 || err != nil || read() != block {
		t.Errorf("got %+v, %q, %v", r, read(), err)
	}
}

// up says when programs do not find the name that it prints, and what works.
func TestUpSaysThatANameDoesNotResolve(t *testing.T) {
	tests := map[string]struct {
		resolves, tags string
		says, silent   []string
	}{
		"it resolves":      {"yes", "", nil, []string{"does not resolve", "host-port", "also"}},
		"it does not":      {"no", "", []string{"a.test does not resolve on this machine", `the tag penstock.host-port: "9001"`, "penstock up --hosts"}, nil},
		"it has a port":    {"no", `"penstock.host-port":"9007"`, []string{"on this machine also http://127.0.0.1:9007, for programs that do not find a.test (Python, Node and most others)"}, []string{"the tag"}},
		"with both":        {"yes", `"penstock.host-port":"9007"`, []string{"on this machine also http://127.0.0.1:9007"}, []string{"do not find"}},
		"a port for later": {"yes", `"penstock.host-port":"none"`, nil, []string{"also"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := runWith(t, map[string]string{"RESOLVES": test.resolves}, named(t, test.tags, withIngress(appA)), "up", "-f", "-")
			if r.code != 0 || r.stdout != "http://a.test:8080\n" {
				t.Fatalf("got %+v, want the URL alone on stdout", r)
			}
			for _, want := range test.says {
				if !strings.Contains(r.stderr, want) {
					t.Errorf("got %q, want %q in it", r.stderr, want)
				}
			}
			for _, not := range test.silent {
				if strings.Contains(r.stderr, not) {
					t.Errorf("got %q, want no %q in it", r.stderr, not)
				}
			}
		})
	}
}
