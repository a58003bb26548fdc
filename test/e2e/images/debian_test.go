package images_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"penstock/test/penstocktest"
)

// Servers as Debian ships them, with the users, ports and folders of their packages, from packages to answers.
func TestDebianPackages(t *testing.T) {
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		t.Skip("mmdebstrap is missing: apt-get install mmdebstrap")
	}
	m := penstocktest.Boot(t)
	port := penstocktest.FreePort(t)
	for _, name := range []string{"nginx", "redis"} {
		from := time.Now()
		m.Must(t, "build", "-t", name+":1", "../../../examples/"+name)
		t.Logf("%s built in %s", name, time.Since(from).Round(time.Millisecond))
	}
	t.Run("an unchanged base is neither made, hashed nor moved again", func(t *testing.T) {
		out := m.Must(t, "build", "-t", "nginx:1", "../../../examples/nginx", "-o", "json")
		if !strings.Contains(out, `"hashedBytes": 0`) || !strings.Contains(out, `"movedBytes": 0`) || strings.Contains(out, `"cached": false`) {
			t.Errorf("the second build says: %s", out)
		}
	})
	t.Run("nginx serves on port 80, its workers as www-data", func(t *testing.T) {
		m.Must(t, "up", "-f", "../../../examples/nginx/app.yaml")
		if status, answer := m.Ask(t, http.MethodGet, "nginx", "/", ""); status != http.StatusOK || !strings.Contains(answer, "Welcome to nginx!") {
			t.Errorf("%d %s", status, answer)
		}
		if who := m.Must(t, "app", "exec", "nginx", "--", "sh", "-c", "cat /proc/[0-9]*/status | grep ^Uid"); !strings.Contains(who, "\t33\t33\t33\t33") || !strings.Contains(who, "\t0\t0\t0\t0") {
			t.Errorf("want processes of user 0 and 33, got\n%s", who)
		}
		if log := m.Must(t, "app", "logs", "nginx"); !strings.Contains(log, `"GET / HTTP/1.1" 200`) {
			t.Errorf("the request is not in the log:\n%s", log)
		}
	})
	t.Run("redis keeps what it is given", func(t *testing.T) {
		manifest, err := os.ReadFile("../../../examples/redis/app.yaml")
		if err != nil {
			t.Fatal(err)
		}
		own := strings.Replace(string(manifest), "exposedPort: 6379", "exposedPort: "+port, 1) // 6379 may be taken
		if said := m.Must(t, "up", "-f", m.File(t, own)); said != "tcp://127.0.0.1:"+port+"\n" {
			t.Errorf("up: got %q", said)
		}
		if said := m.Must(t, "app", "exec", "redis", "--", "redis-cli", "set", "model", "chat"); !strings.Contains(said, "OK") {
			t.Errorf("set: %s", said)
		}
		if said := m.Must(t, "app", "exec", "redis", "--", "sh", "-c", "redis-cli bgsave && redis-cli get model && id -un"); !strings.Contains(said, "chat") || !strings.Contains(said, "redis") {
			t.Errorf("get: %s", said)
		}
	})
	t.Run("redis is reached from the machine", func(t *testing.T) {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(time.Minute))
		io.WriteString(conn, "GET model\r\nQUIT\r\n")
		if said, err := io.ReadAll(conn); string(said) != "$4\r\nchat\r\n+OK\r\n" {
			t.Errorf("get: got %q, %v", said, err)
		}
	})
	t.Run("redis is reached from another app by its name", func(t *testing.T) {
		m.Apply(t, redisClient("client", ""))
		for _, host := range []string{"redis", "redis.internal.penstock.localhost"} {
			if said := m.Must(t, "app", "exec", "client", "--", "redis-cli", "-h", host, "-p", port, "get", "model"); !strings.Contains(said, "chat") {
				t.Errorf("%s: got %s", host, said)
			}
		}
		m.Environment(t, "far")
		m.Apply(t, redisClient("stranger", "far"))
		gateway := m.Must(t, "app", "exec", "stranger", "--", "sh", "-c", "awk '/nameserver/ {print $2}' /etc/resolv.conf")
		for _, host := range []string{"redis", strings.TrimSpace(gateway)} {
			if out, bad, code := m.Run(t, "app", "exec", "stranger", "--", "redis-cli", "-h", host, "-p", port, "get", "model"); code == 0 || strings.Contains(out, "chat") {
				t.Errorf("%s from another environment: exit %d, %s%s", host, code, out, bad)
			}
		}
	})
}

// redisClient is the manifest of an app that has a redis-cli, and no port.
func redisClient(name, environment string) string {
	in := ""
	if environment != "" {
		in = "environmentId: " + penstocktest.EnvironmentPath(environment)
	}
	return fmt.Sprintf(`
name: %s
properties:
  %s
  template:
    containers:
      - name: client
        image: redis:1
        command: [sleep, infinity]
        resources: {cpu: 0.25, memory: 0.5Gi}
    scale: {minReplicas: 1, maxReplicas: 1}
`, name, in)
}
