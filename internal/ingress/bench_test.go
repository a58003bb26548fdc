package ingress_test

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"penstock/internal/access"
	"penstock/internal/ingress"
	"penstock/internal/resource"
)

// roleVariable makes the test binary a replica that answers 1 KiB, so that its CPU time is not the proxy's.
const roleVariable = "INGRESS_TEST_ROLE"

func TestMain(m *testing.M) {
	switch role, arg, _ := strings.Cut(os.Getenv(roleVariable), "="); role {
	case "replica":
		answerKiB()
	case "load":
		generate(arg)
	default:
		os.Exit(m.Run())
	}
}

func answerKiB() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	os.Stdout.WriteString(ln.Addr().String() + "\n")
	body := []byte(strings.Repeat("x", 1024))
	go http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write(body) }))
	io.Copy(io.Discard, os.Stdin) // the parent's end is ours
}

// generate sends GET requests to an address over 64 connections until its input ends, and then says how many.
func generate(addr string) {
	var n atomic.Int64
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				panic(err)
			}
			defer conn.Close()
			r := bufio.NewReader(conn)
			for !stop.Load() {
				io.WriteString(conn, "GET / HTTP/1.1\r\nHost: app.test\r\nUser-Agent: load\r\nAccept: */*\r\n\r\n")
				resp, err := http.ReadResponse(r, nil)
				if err != nil || resp.StatusCode != 200 {
					panic("bad answer")
				}
				if got, _ := io.Copy(io.Discard, resp.Body); got != 1024 {
					panic("short answer")
				}
				n.Add(1)
			}
		})
	}
	io.Copy(io.Discard, os.Stdin)
	stop.Store(true)
	wg.Wait()
}

// child runs this binary in another role and returns the first line that it says.
func child(b *testing.B, role string) (line string, end func()) {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.Stderr = os.Stderr
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	if role == "replica" {
		line, _ = bufio.NewReader(out).ReadString('\n')
	}
	return strings.TrimSpace(line), func() {
		in.Close()
		cmd.Wait()
	}
}

// BenchmarkCPU is the CPU time of this process and its allocations a request of 1 KiB, 64 connections, with access
// records; load and replica are processes of their own. One "op" is a second of it. `penstock bench proxy` has it beside
// other proxies.
func BenchmarkCPU(b *testing.B) {
	addr, end := child(b, "replica")
	defer end()
	records, err := access.NewWriter(b.TempDir(), access.Limits{}, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	var writing sync.WaitGroup
	writing.Go(func() { records.Run(ctx) })
	defer writing.Wait()
	defer cancel()
	f := serve(b, ingress.Config{Observe: records.Add})
	f.Apply(set(replicas(addr), func(s *resource.Settings) { s.IdleTimeout = 10 * time.Minute })) // the default
	_, end = child(b, "load="+f.plain)
	defer end()
	until(b, "it is warm", func() bool { return f.Stats().Requests > 5000 })

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu, n := usage(), f.Stats().Requests
	for b.Loop() {
		time.Sleep(time.Second) // the length of an op
	}
	cpu, n = usage()-cpu, f.Stats().Requests-n
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.Mallocs-before.Mallocs)/float64(n), "allocs/req")
	b.ReportMetric(float64(cpu.Nanoseconds())/1e3/float64(n), "us/req")
}

// BenchmarkHeld is how long 1,000 requests that were held take from the table that brings a replica, and the processes of
// all three parties share the machine: the median and the last of them, the clients' time included.
func BenchmarkHeld(b *testing.B) {
	const requests = 1000
	addr, end := child(b, "replica")
	defer end()
	f := serve(b, ingress.Config{})
	var medians, lasts time.Duration
	for b.Loop() {
		f.Apply(replicas())
		ended := make([]time.Time, requests)
		var wg sync.WaitGroup
		for i := range requests {
			conn, r := f.dial(b, "GET / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n")
			wg.Go(func() {
				defer conn.Close()
				resp, err := http.ReadResponse(r, nil)
				if err != nil || resp.StatusCode != 200 {
					b.Errorf("got %v, %v, want 200", resp, err)
					return
				}
				if n, err := io.Copy(io.Discard, resp.Body); n != 1024 || err != nil {
					b.Errorf("got %d bytes, %v, want 1024", n, err)
				}
				ended[i] = time.Now()
			})
		}
		f.waiting(b, requests)
		released := time.Now()
		f.Apply(replicas(addr))
		wg.Wait()
		slices.SortFunc(ended, time.Time.Compare)
		medians += ended[requests/2].Sub(released)
		lasts += ended[requests-1].Sub(released)
	}
	b.ReportMetric(float64(medians.Microseconds())/1e3/float64(b.N), "ms/median")
	b.ReportMetric(float64(lasts.Microseconds())/1e3/float64(b.N), "ms/last")
}

func usage() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
