package e2e_test

import (
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// Servers as Debian ships them, with the users, ports and folders of their packages, from packages to answers.
func TestDebianPackages(t *testing.T) {
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		t.Skip("mmdebstrap is missing: apt-get install mmdebstrap")
	}
	m := bootMachine(t)
	for _, name := range []string{"nginx", "redis"} {
		from := time.Now()
		m.must(t, "build", "-t", name+":1", "../../examples/"+name)
		t.Logf("%s built in %s", name, time.Since(from).Round(time.Millisecond))
	}
	t.Run("an unchanged base is neither made, hashed nor moved again", func(t *testing.T) {
		out := m.must(t, "build", "-t", "nginx:1", "../../examples/nginx", "-o", "json")
		if !strings.Contains(out, `"hashedBytes": 0`) || !strings.Contains(out, `"movedBytes": 0`) || strings.Contains(out, `"cached": false`) {
			t.Errorf("the second build says: %s", out)
		}
	})
	t.Run("nginx serves on port 80, its workers as www-data", func(t *testing.T) {
		m.must(t, "up", "-f", "../../examples/nginx/app.yaml")
		if status, answer := m.ask(t, http.MethodGet, "nginx", "/", ""); status != http.StatusOK || !strings.Contains(answer, "Welcome to nginx!") {
			t.Errorf("%d %s", status, answer)
		}
		if who := m.must(t, "app", "exec", "nginx", "--", "sh", "-c", "cat /proc/[0-9]*/status | grep ^Uid"); !strings.Contains(who, "\t33\t33\t33\t33") || !strings.Contains(who, "\t0\t0\t0\t0") {
			t.Errorf("want processes of user 0 and 33, got\n%s", who)
		}
		if log := m.must(t, "app", "logs", "nginx"); !strings.Contains(log, `"GET / HTTP/1.1" 200`) {
			t.Errorf("the request is not in the log:\n%s", log)
		}
	})
	t.Run("redis keeps what it is given", func(t *testing.T) {
		m.must(t, "up", "-f", "../../examples/redis/app.yaml")
		if said := m.must(t, "app", "exec", "redis", "--", "redis-cli", "set", "model", "chat"); !strings.Contains(said, "OK") {
			t.Errorf("set: %s", said)
		}
		if said := m.must(t, "app", "exec", "redis", "--", "sh", "-c", "redis-cli bgsave && redis-cli get model && id -un"); !strings.Contains(said, "chat") || !strings.Contains(said, "redis") {
			t.Errorf("get: %s", said)
		}
	})
}
