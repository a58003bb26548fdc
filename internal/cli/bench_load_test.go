package cli_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"penstock/internal/load"
)

func TestBenchLoad(t *testing.T) {
	var served atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if r.Host != "app.example" || r.Method != "PUT" || r.Header.Get("X-Test") != "a: b" || string(b) != "hello" {
			t.Errorf("got %s to %s, %v, %q", r.Method, r.Host, r.Header, b)
		}
		served.Add(1)
		fmt.Fprint(w, "data: 1\n\ndata: 2\n\n")
	}))
	defer s.Close()
	body := filepath.Join(t.TempDir(), "body")
	if err := os.WriteFile(body, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, arrivals := range map[string][]string{
		"default":    nil,
		"constant":   {"--rate", "1000"},
		"Poisson":    {"--poisson", "1000", "--seed", "5"},
		"closed":     {"--clients", "3", "--think", "1ms"},
		"connection": {"--rate", "1000", "--new-connections"},
	} {
		t.Run(name, func(t *testing.T) {
			served.Store(0)
			args := append([]string{
				"bench", "load", "http://app.example/", "--count", "7", "--events", "--fail", "-o", "json", "--body", "@" + body, "--method", "PUT",
				"--header", "X-Test: a: b", "--resolve", "app.example:80:" + strings.TrimPrefix(s.URL, "http://"),
			}, arrivals...)
			r := call(t, nil, args...)
			var sum load.Summary
			if err := json.Unmarshal([]byte(r.stdout), &sum); err != nil || r.code != 0 || r.stderr != "" {
				t.Fatalf("got %+v, %v", r, err)
			}
			if sum.Succeeded != 7 || sum.Events != 14 || sum.Latency.Count != 7 || served.Load() != 7 {
				t.Errorf("got %+v, %d served", sum, served.Load())
			}
		})
	}
}
