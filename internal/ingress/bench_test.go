package ingress_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"penstock/internal/ingress"
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

// BenchmarkCPU compares the CPU time of this process a request of 1 KiB, 64 connections, in interleaved rounds; load
// and replica are processes of their own. One "op" is one round of each.
func BenchmarkCPU(b *testing.B) {
	addr, end := child(b, "replica")
	defer end()
	f := serve(b, ingress.Config{})
	f.Apply(replicas(addr))

	target, _ := url.Parse("http://" + addr)
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.Transport = &http.Transport{MaxIdleConns: 256, MaxIdleConnsPerHost: 256, DisableCompression: true}
	peerLn := listen(b)
	var served atomic.Int64
	peer := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		served.Add(1)
		proxy.ServeHTTP(w, r)
	})}
	go peer.Serve(peerLn)
	defer peer.Shutdown(context.Background())

	round := func(addr string, count func() int64) (us, allocs float64) {
		_, end := child(b, "load="+addr)
		defer end()
		start := count()
		for count() < start+500 { // warm
			time.Sleep(time.Millisecond)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		cpu, n := usage(), count()
		time.Sleep(time.Second) // the length of a round
		cpu, n = usage()-cpu, count()-n
		runtime.ReadMemStats(&after)
		return float64(cpu.Nanoseconds()) / 1e3 / float64(n), float64(after.Mallocs-before.Mallocs) / float64(n)
	}
	var ours, theirs, ourAllocs, theirAllocs float64
	for b.Loop() {
		us, allocs := round(f.plain, func() int64 { return f.Stats().Requests })
		ours, ourAllocs = ours+us, ourAllocs+allocs
		us, allocs = round(peerLn.Addr().String(), served.Load)
		theirs, theirAllocs = theirs+us, theirAllocs+allocs
	}
	b.ReportMetric(ourAllocs/float64(b.N), "allocs/req")
	b.ReportMetric(theirAllocs/float64(b.N), "allocs/req-ReverseProxy")
	b.ReportMetric(ours/float64(b.N), "us/req")
	b.ReportMetric(theirs/float64(b.N), "us/req-ReverseProxy")
	b.ReportMetric(ours/theirs, "ratio")
}

func usage() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
