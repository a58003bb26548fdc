package network_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"penstock/test/penstocktest"
)

// talk asks hello for / over one connection of a TCP app.
func talk(conn net.Conn) (answer string, err error) {
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: any\r\n\r\n"); err != nil {
		return "", err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// A TCP app in containers, from outside and from its neighbours.
func TestTCPApp(t *testing.T) {
	m := penstocktest.Boot(t)
	m.Image(t, "hello")
	domain := m.Environment(t, "far")
	port := penstocktest.FreePort(t)
	m.Apply(t, penstocktest.Neighbour("front", "", true))
	m.Apply(t, penstocktest.Neighbour("stranger", "far", true))
	stranger := "stranger." + strings.TrimSuffix(domain, ".penstock.localhost")
	tcp := strings.Replace(penstocktest.Neighbour("store", "", true), "allowInsecure: true", "transport: tcp, exposedPort: "+port, 1)
	if said := m.Must(t, "up", "-f", m.File(t, tcp)); said != "tcp://127.0.0.1:"+port+"\n" {
		t.Fatalf("up: got %q, want the port", said)
	}
	dial := func() (net.Conn, error) { return net.DialTimeout("tcp", "127.0.0.1:"+port, time.Minute) }

	t.Run("from outside", func(t *testing.T) {
		conn, err := dial()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for range 2 {
			if answer, err := talk(conn); answer != "hello, store\n" {
				t.Errorf("got %q, %v", answer, err)
			}
		}
		if status, answer := m.Ask(t, http.MethodGet, "store", "/", ""); status != http.StatusNotFound {
			t.Errorf("over HTTP: got %d %s, want 404", status, answer)
		}
	})
	t.Run("from its environment", func(t *testing.T) {
		for _, host := range []string{"store", "store.penstock.localhost", "store.internal.penstock.localhost"} {
			if status, answer := m.Inside(t, "front", "http://"+net.JoinHostPort(host, port)+"/", ""); status != http.StatusOK || answer != "hello, store\n" {
				t.Errorf("%s: got %d %q", host, status, answer)
			}
		}
	})
	t.Run("from nowhere else", func(t *testing.T) {
		refused := func(app, host, port string) {
			t.Helper()
			if status, answer := m.Ask(t, http.MethodGet, app, "/dial?to="+net.JoinHostPort(host, port), ""); status != http.StatusBadGateway {
				t.Errorf("%s to %s:%s: got %d %q, want a refusal", app, host, port, status, answer)
			}
		}
		refused(stranger, "store", port)
		refused(stranger, m.Gateway(t, stranger), port)
		refused(stranger, m.Gateway(t, "front"), port)
		refused("front", m.Gateway(t, "front"), "8080") // its target port
		refused("front", m.Gateway(t, "front"), "22")
	})
	t.Run("through restarts", func(t *testing.T) { tcpThroughRestarts(t, m, port) })
	t.Run("until it is deleted", func(t *testing.T) {
		m.Must(t, "app", "delete", "store")
		penstocktest.Until(t, time.Minute, "the port is closed", func() bool {
			conn, err := dial()
			if err == nil {
				conn.Close()
			}
			return errors.Is(err, syscall.ECONNREFUSED)
		})
		if status, answer := m.Ask(t, http.MethodGet, "front", "/dial?to="+net.JoinHostPort(m.Gateway(t, "front"), port), ""); status != http.StatusBadGateway {
			t.Errorf("from inside: got %d %q, want a refusal", status, answer)
		}
	})
}

// tcpThroughRestarts opens connections, again and again, while the roles are killed and handed over, and keeps one open.
func tcpThroughRestarts(t *testing.T, m *penstocktest.Machine, port string) {
	address := "127.0.0.1:" + port
	kept, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	goesOn := func(what string) {
		t.Helper()
		if answer, err := talk(kept); answer != "hello, store\n" {
			t.Errorf("%s: the open connection got %q, %v", what, answer, err)
		}
	}
	goesOn("before")

	var wg sync.WaitGroup
	stop := make(chan struct{})
	var good, refused, broken atomic.Int64
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				conn, err := net.Dial("tcp", address)
				if err != nil {
					refused.Add(1)
					t.Logf("a connection was refused: %v", err)
					continue
				}
				if answer, err := talk(conn); answer == "hello, store\n" {
					good.Add(1)
				} else {
					broken.Add(1)
					t.Logf("a connection broke: %q, %v", answer, err)
				}
				conn.Close()
			}
		})
	}
	inside := func(what string) {
		t.Helper()
		if status, answer := m.Inside(t, "front", "http://store:"+port+"/", ""); status != http.StatusOK || answer != "hello, store\n" {
			t.Errorf("%s: from inside: %d %q", what, status, answer)
		}
	}
	calls := func(what string, lost int64) {
		t.Helper()
		more := good.Load() + 100
		penstocktest.Until(t, time.Minute, "connections after "+what, func() bool { return good.Load() >= more })
		off, cut := refused.Swap(0), broken.Swap(0)
		t.Logf("%s: of %d connections %d were refused, and %d broke", what, good.Load(), off, cut)
		if off > 0 || cut > lost {
			t.Errorf("%s: %d connections were refused and %d broke, want 0 and at most %d", what, off, cut, lost)
		}
		inside(what)
	}
	calls("nothing", 0)

	control := m.Role(t, "control")
	if err := syscall.Kill(control, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	inside("control is away") // or on its way back: its rules are replaced meanwhile
	penstocktest.Until(t, time.Minute, "control is back", func() bool { now := m.Role(t, "control"); return now != 0 && now != control })
	penstocktest.Until(t, time.Minute, "the API answers", func() bool { _, _, code := m.Run(t, "app", "list"); return code == 0 })
	calls("control was killed", 0)
	goesOn("control was killed")

	ingress := m.Role(t, "ingress")
	if err := syscall.Kill(m.Supervisor(t), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	penstocktest.Until(t, time.Minute, "the ingress is new", func() bool { now := m.Role(t, "ingress"); return now != 0 && now != ingress })
	penstocktest.Until(t, time.Minute, "the API answers", func() bool { _, _, code := m.Run(t, "app", "list"); return code == 0 })
	calls("a hand-over", 0)
	goesOn("a hand-over")

	for range 3 {
		ingress := m.Role(t, "ingress")
		if err := syscall.Kill(ingress, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		penstocktest.Until(t, time.Minute, "the ingress is back", func() bool { now := m.Role(t, "ingress"); return now != 0 && now != ingress })
		calls("the ingress was killed", 4) // what was on its way
	}
	close(stop)
	wg.Wait()
}
