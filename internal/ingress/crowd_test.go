package ingress_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"penstock/internal/ingress"
)

// flood is what a process of its own does to an ingress: it opens many connections from another address, sends text on each,
// keeps them, and replaces those that are closed.
func flood(to, text string, n int) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}, Timeout: 10 * time.Second}
	tries := make(chan struct{})
	for range n {
		go func() {
			for {
				conn, err := dialer.Dial("tcp", to)
				if err == nil {
					io.WriteString(conn, text)
				}
				tries <- struct{}{}
				if err == nil {
					io.Copy(io.Discard, conn)
					conn.Close()
				}
				time.Sleep(100 * time.Millisecond) // its pace
			}
		}()
	}
	for i := 1; ; i++ {
		<-tries
		if i == 2*n {
			fmt.Println("all have tried")
		}
	}
}

// TestFlood is a process with descriptors of its own: the one that floods, or a replica. TestFloodOfConnections starts it.
func TestFlood(t *testing.T) {
	switch to := os.Getenv("PENSTOCK_TEST_FLOOD"); to {
	case "":
	case "replica":
		fmt.Println(app(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/hang" {
				<-r.Context().Done()
				return
			}
			io.WriteString(w, "hello")
		}))
		select {}
	default:
		n, err := strconv.Atoi(os.Getenv("PENSTOCK_TEST_FLOOD_N"))
		if err != nil {
			t.Fatal(err)
		}
		text, err := strconv.Unquote(os.Getenv("PENSTOCK_TEST_FLOOD_TEXT"))
		if err != nil {
			t.Fatal(err)
		}
		flood(to, text, n)
	}
}

// aside starts TestFlood in a process of its own, until the test ends, and returns the first line that it prints.
func aside(t *testing.T, env ...string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	process := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestFlood$", "-test.timeout=10m")
	process.Env = append(os.Environ(), env...)
	out, err := process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		process.Wait() // says that it was killed
	})
	lines := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(out).ReadString('\n')
		lines <- strings.TrimSpace(line)
	}()
	return receive(t, "the first line of "+env[0], lines)
}

// Apps answer others while one client holds every connection that it can get, whatever it does with them.
func TestFloodOfConnections(t *testing.T) {
	const request = "GET / HTTP/1.1\r\nHost: " + host + "\r\n"
	for name, text := range map[string]string{
		"silent":         "\r\n",
		"idle":           request + "\r\n",
		"half a head":    request,
		"hanging":        "GET /hang HTTP/1.1\r\nHost: " + host + "\r\n\r\n",
		"HTTP/2, silent": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
	} {
		t.Run(name, func(t *testing.T) {
			addr := aside(t, "PENSTOCK_TEST_FLOOD=replica")
			const descriptors = 400 // beyond those that the test has
			f := serve(t, ingress.Config{Descriptors: limitFiles(t, descriptors)})
			f.Apply(replicas(addr))
			said := aside(t, "PENSTOCK_TEST_FLOOD="+f.plain, "PENSTOCK_TEST_FLOOD_N="+strconv.Itoa(2*descriptors), "PENSTOCK_TEST_FLOOD_TEXT="+strconv.Quote(text))
			if said != "all have tried" {
				t.Fatalf("the flood says %q", said)
			}
			failed := 0
			for range 50 {
				client := clientTo(t, f.plain)
				client.Timeout = 10 * time.Second
				resp, err := client.Get("http://" + host + "/")
				if err != nil {
					t.Logf("a request of another client: %v", err)
					failed++
					continue
				}
				if body, err := io.ReadAll(resp.Body); string(body) != "hello" || err != nil {
					t.Errorf("got %d %q, %v, want the app's answer", resp.StatusCode, body, err)
				}
				resp.Body.Close()
				client.CloseIdleConnections()
			}
			if failed > 0 {
				t.Errorf("%d of 50 requests of another client failed", failed)
			}
			t.Logf("shed %d connections", f.Stats().Shed)
		})
	}
}

// limitFiles lets the process have so many descriptors more than it has now, until the test ends. It returns the limit.
func limitFiles(t *testing.T, more int) int {
	t.Helper()
	newest, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer newest.Close()
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	limit := int(newest.Fd()) + more
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: uint64(limit), Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
			t.Error(err)
		}
	})
	return limit
}
