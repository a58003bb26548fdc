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
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"penstock/internal/accesslog"
	"penstock/internal/ingress"
	"penstock/internal/resource"
)

// roleVariable makes the test binary a replica that answers 1 KiB, so that its CPU time is not the proxy's.
const roleVariable = "INGRESS_TEST_ROLE"

func TestMain(m *testing.M) {
	switch role, arg, _ := strings.Cut(os.Getenv(roleVariable), "="); role {
	case "replica":
		answerKiB()
	case "echo":
		echo()
	case "messages":
		sendMessages(arg)
	case "load":
		generate(arg)
	default:
		os.Exit(m.Run())
	}
}

func answerKiB() {
	body := []byte(strings.Repeat("x", 1024))
	beReplica(func(ln net.Listener) {
		http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write(body) }))
	})
}

// beReplica says where it listens, and serves until its input ends.
func beReplica(serve func(net.Listener)) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	os.Stdout.WriteString(ln.Addr().String() + "\n")
	go serve(ln)
	io.Copy(io.Discard, os.Stdin) // the parent's end is ours
}

// echo is a replica that sends back what it gets.
func echo() {
	beReplica(func(ln net.Listener) {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				buf := make([]byte, 4<<10)
				for {
					n, err := conn.Read(buf)
					if err != nil {
						return
					}
					conn.Write(buf[:n])
				}
			}()
		}
	})
}

// sendMessages sends messages of 64 bytes to an address over 64 connections, each after the echo of the one before, until its
// input ends, and says how many each time that a line comes.
func sendMessages(addr string) {
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
			message := make([]byte, 64)
			for !stop.Load() {
				conn.Write(message)
				if _, err := io.ReadFull(conn, message); err != nil {
					panic(err)
				}
				n.Add(1)
			}
		})
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		os.Stdout.WriteString(strconv.FormatInt(n.Load(), 10) + "\n")
	}
	stop.Store(true)
	wg.Wait()
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

// part is this binary in another role.
type part struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func start(b *testing.B, role string) *part {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	p := &part{cmd: exec.Command(self)}
	p.cmd.Env = append(os.Environ(), roleVariable+"="+role)
	p.cmd.Stderr = os.Stderr
	p.in, _ = p.cmd.StdinPipe()
	out, _ := p.cmd.StdoutPipe()
	p.out = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		p.in.Close()
		p.cmd.Wait()
	})
	return p
}

// line is the next one that it says.
func (p *part) line() string {
	line, _ := p.out.ReadString('\n')
	return strings.TrimSpace(line)
}

// count asks it how far it is.
func (p *part) count() int64 {
	io.WriteString(p.in, "\n")
	n, _ := strconv.ParseInt(p.line(), 10, 64)
	return n
}

// BenchmarkCPU is the CPU time of this process and its allocations a request of 1 KiB, 64 connections, with access
// records; load and replica are processes of their own. One "op" is a second of it. `penstock bench proxy` has it beside
// other proxies.
func BenchmarkCPU(b *testing.B) {
	addr := start(b, "replica").line()
	records, err := accesslog.NewWriter(b.TempDir(), accesslog.Limits{}, slog.New(slog.DiscardHandler))
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
	start(b, "load="+f.plain)
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

// BenchmarkMessages is the CPU time of this process a message of 64 bytes and its echo, over 64 connections to a TCP app;
// both ends are processes of their own. One "op" is a second of it.
func BenchmarkMessages(b *testing.B) {
	addr := start(b, "echo").line()
	f := serveTCP(b, ingress.Config{}, newMachinePorts(b))
	f.route(set(tcpOf(replicas(addr)), func(s *resource.Settings) { s.IdleTimeout = 10 * time.Minute })) // the default
	load := start(b, "messages="+f.addr(6379))
	until(b, "it is warm", func() bool { return load.count() > 5000 })
	cpu, n := usage(), load.count()
	for b.Loop() {
		time.Sleep(time.Second) // the length of an op
	}
	cpu, n = usage()-cpu, load.count()-n
	b.ReportMetric(float64(cpu.Nanoseconds())/1e3/float64(n), "us/message")
}

// BenchmarkHeld is how long 1,000 requests that were held take from the table that brings a replica, and the processes of
// all three parties share the machine: the median and the last of them, the clients' time included.
func BenchmarkHeld(b *testing.B) {
	const requests = 1000
	addr := start(b, "replica").line()
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
