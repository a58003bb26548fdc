package ingress_test

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"penstock/internal/accesslog"
	"penstock/internal/ingress"
	"penstock/internal/resource"
)

// stream is a body of n bytes that nobody holds.
type stream struct {
	at, size int64
	sum      hash.Hash
}

// block repeats in a stream; its length has no factor in common with those of buffers.
var block = func() []byte {
	b := make([]byte, 32<<10-1)
	for i := range b {
		b[i] = byte(i * i >> 5)
	}
	return b
}()

func (s *stream) Read(p []byte) (int, error) {
	if s.at == s.size {
		return 0, io.EOF
	}
	n := copy(p[:min(int64(len(p)), s.size-s.at)], block[s.at%int64(len(block)):])
	s.at += int64(n)
	if s.sum != nil {
		s.sum.Write(p[:n])
	}
	return n, nil
}

func TestLargeBodiesStream(t *testing.T) {
	const size = 32 << 20
	f := serve(t, ingress.Config{})
	f.Apply(replicas(app(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			sum := sha256.New()
			n, _ := io.Copy(sum, r.Body)
			fmt.Fprintf(w, "%d %x", n, sum.Sum(nil))
			return
		}
		if r.URL.Path == "/length" {
			w.Header().Set("Content-Length", fmt.Sprint(size))
		}
		io.Copy(w, &stream{size: size})
	})))
	var before, after runtime.MemStats
	for _, length := range []int64{size, -1} {
		body := &stream{size: size, sum: sha256.New()}
		r := request(t, http.MethodPost, "/", body)
		r.ContentLength = length
		runtime.GC()
		runtime.ReadMemStats(&before)
		resp, got := f.do(t, r)
		runtime.ReadMemStats(&after)
		if wanted := fmt.Sprintf("%d %x", size, body.sum.Sum(nil)); resp.StatusCode != 200 || got != wanted {
			t.Errorf("upload: got %d %s, want %s", resp.StatusCode, got, wanted)
		}
		// All three parties live in this process; what they allocate is a bound for what they hold.
		if used := after.TotalAlloc - before.TotalAlloc; used > 8<<20 {
			t.Errorf("upload: allocated %d KiB for %d MiB", used>>10, size>>20)
		}
	}
	for _, path := range []string{"/length", "/chunks"} {
		runtime.GC()
		runtime.ReadMemStats(&before)
		resp, err := f.client.Do(request(t, http.MethodGet, path, nil))
		if err != nil {
			t.Fatal(err)
		}
		got := sha256.New()
		n, err := io.Copy(got, resp.Body)
		resp.Body.Close()
		runtime.ReadMemStats(&after)
		wanted := &stream{size: size, sum: sha256.New()}
		io.Copy(io.Discard, wanted)
		if n != size || err != nil || string(got.Sum(nil)) != string(wanted.sum.Sum(nil)) {
			t.Errorf("download %s: got %d bytes, %v, want %d, and the same", path, n, err, size)
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > 8<<20 {
			t.Errorf("download %s: allocated %d KiB for %d MiB", path, used>>10, size>>20)
		}
	}
}

func TestEarlyResponseDuringUpload(t *testing.T) {
	f := serve(t, ingress.Config{})
	f.Apply(replicas(raw(t, func(conn net.Conn, r *bufio.Reader) {
		http.ReadRequest(r)
		io.WriteString(conn, "HTTP/1.1 413 Too Large\r\nContent-Length: 9\r\n\r\ntoo large")
		io.Copy(io.Discard, r)
	})))
	in, out := io.Pipe()
	defer out.Close()
	go out.Write(make([]byte, 64<<10)) // and no more until the answer is there
	resp, body := f.do(t, request(t, http.MethodPost, "/", in))
	want(t, resp, body, 413, "too large")
}

func TestAnswerToALargeBodyThatNobodyWants(t *testing.T) {
	f := serve(t, ingress.Config{})
	f.Apply(replicas())
	for length, ends := range map[int]bool{200 << 10: false, 300 << 10: true} {
		_, r := f.dial(t, fmt.Sprintf("POST / HTTP/1.1\r\nHost: nobody.test\r\nContent-Length: %d\r\n\r\n", length))
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != 404 || resp.Close != ends {
			t.Errorf("%d bytes: got %d, close %v, want 404, close %v", length, resp.StatusCode, resp.Close, ends)
		}
	}
}

func TestUploadThatBreaksOff(t *testing.T) {
	t.Parallel()
	for name, sent := range map[string]string{
		"length": "Content-Length: 1000000\r\n\r\n" + strings.Repeat("x", 50<<10),
		"small":  "Content-Length: 100\r\n\r\nxxx",
		"chunks": "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			var rec records
			f := serve(t, ingress.Config{Observe: rec.observe})
			came, whole := make(chan bool, 1), make(chan bool, 1)
			f.Apply(replicas(app(t, func(w http.ResponseWriter, r *http.Request) {
				came <- true
				_, err := io.Copy(io.Discard, r.Body)
				whole <- err == nil
			})))
			conn, _ := f.dial(t, "POST / HTTP/1.1\r\nHost: app.test\r\n"+sent)
			if name != "small" { // which is read whole first
				until(t, "the request is in flight", func() bool { return f.Report().InFlight["r0"] == 1 })
				receive(t, "the request reaches the replica", came)
			}
			conn.Close()
			if got := rec.last(t, 1); got.Flags != accesslog.FlagDownstreamTermination {
				t.Errorf("flags: got %v, want DC", got.Flags)
			}
			if name != "small" && receive(t, "the replica's view", whole) {
				t.Error("the replica took a part for the whole")
			}
		})
	}
}

func TestExpectContinue(t *testing.T) {
	t.Parallel()
	t.Run("the replica wants the body", func(t *testing.T) {
		f := serve(t, ingress.Config{})
		f.Apply(replicas(app(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })))
		conn, r := f.dial(t, "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
		if line, _ := r.ReadString('\n'); line != "HTTP/1.1 100 Continue\r\n" {
			t.Fatalf("got %q, want 100", line)
		}
		r.ReadString('\n')
		io.WriteString(conn, "body")
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		want(t, resp, string(body), 200, "body")
	})
	t.Run("the replica does not", func(t *testing.T) {
		f := serve(t, ingress.Config{})
		f.Apply(replicas(app(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusForbidden) })))
		_, r := f.dial(t, "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
		if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != 403 {
			t.Errorf("got %v, %v, want 403 and no 100", resp, err)
		}
	})
	t.Run("the replica does not know the word", func(t *testing.T) {
		f := serve(t, ingress.Config{})
		f.Apply(replicas(raw(t, func(conn net.Conn, r *bufio.Reader) {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			body, _ := io.ReadAll(req.Body)
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		})))
		conn, r := f.dial(t, "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
		began := time.Now()
		if line, _ := r.ReadString('\n'); line != "HTTP/1.1 100 Continue\r\n" {
			t.Fatalf("got %q, want 100", line)
		}
		if took := time.Since(began); took < 500*time.Millisecond {
			t.Errorf("asked for the body after %v, want the replica to have a say first", took)
		}
		r.ReadString('\n')
		io.WriteString(conn, "body")
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		want(t, resp, string(body), 200, "body")
	})
}

// A client that sends its body slowly takes no place while a small body comes, and is ended where a large one comes too slowly.
func TestSlowBodiesHoldNoPlaces(t *testing.T) {
	f := serve(t, ingress.Config{BodyTimeout: 300 * time.Millisecond})
	f.Apply(set(replicas(app(t, func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n, err)
	})), func(s *resource.Settings) { s.MaxConcurrency = 1 }))
	for name, head := range map[string]string{
		"small":     "Content-Length: 10\r\n\r\nab",
		"large":     "Content-Length: 1000000\r\n\r\nab",
		"in chunks": "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			conn, r := f.dial(t, "POST / HTTP/1.1\r\nHost: "+host+"\r\n"+head)
			slow := make(chan int, 1)
			go func() {
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Error(err)
					slow <- 0
					return
				}
				slow <- resp.StatusCode
			}()
			ended := make(chan struct{})
			drip := make(chan struct{})
			go func() { // a byte now and then, so that it is never silent
				defer close(drip)
				next := map[string]string{"small": "", "large": "c", "in chunks": "1\r\nc\r\n"}[name]
				for tick := time.NewTicker(20 * time.Millisecond); ; {
					select {
					case <-tick.C:
						io.WriteString(conn, next)
					case <-ended:
						tick.Stop()
						return
					}
				}
			}()
			if name == "small" {
				resp, body := f.get(t, "/")
				want(t, resp, body, 200, "0")
			}
			if status := receive(t, "the slow client's answer", slow); status != http.StatusRequestTimeout {
				t.Errorf("the slow client got %d, want 408", status)
			}
			close(ended)
			<-drip
			until(t, "its place is free", func() bool { return len(f.Report().InFlight) == 0 })
			resp, body := f.get(t, "/")
			want(t, resp, body, 200, "0")
		})
	}
}
