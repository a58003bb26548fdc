package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// The parts that this program runs in processes of their own: the replica, and Go's proxy.
const (
	PartReplica = "replica"
	PartGo      = "reverseproxy"
)

// RunPart serves as a part until in or ctx ends. It writes its address to out. replica is the address of the replica,
// for the parts that need it.
func RunPart(ctx context.Context, name, replica string, in io.Reader, out io.Writer) error {
	var handler http.Handler
	switch name {
	case PartReplica:
		handler = replicaHandler()
	case PartGo:
		target, err := url.Parse("http://" + replica)
		if err != nil {
			return fmt.Errorf("replica: %w", err)
		}
		proxy := httputil.NewSingleHostReverseProxy(target)
		proxy.Transport = &http.Transport{MaxIdleConns: maxIdle, MaxIdleConnsPerHost: maxIdle, DisableCompression: true}
		proxy.FlushInterval = -1
		handler = proxy
	default:
		return fmt.Errorf("part: want %s or %s, got %q", PartReplica, PartGo, name)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler}
	ended, end := context.WithCancel(ctx)
	defer end()
	go func() {
		defer end()
		_, _ = io.Copy(io.Discard, in) // in ends when the parent process ends
	}()
	stop := context.AfterFunc(ended, func() { _ = server.Close() })
	defer stop()
	if _, err := fmt.Fprintln(out, ln.Addr()); err != nil {
		return err
	}
	if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// maxIdle is the number of idle connections to the replica that a proxy may keep.
const maxIdle = 2048

func replicaHandler() http.Handler {
	small := []byte(strings.Repeat("x", 1<<10))
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(small) })
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.FormValue("n"))
		every, _ := time.ParseDuration(r.FormValue("every"))
		w.Header().Set("Content-Type", "text/event-stream")
		to := http.NewResponseController(w)
		tick := time.NewTicker(max(every, time.Millisecond))
		defer tick.Stop()
		for range n {
			if _, err := fmt.Fprintf(w, "data: %d\n\n", time.Now().UnixNano()); err != nil || to.Flush() != nil {
				return
			}
			select {
			case <-tick.C:
			case <-r.Context().Done():
				return
			}
		}
	})
	mux.HandleFunc("/upload", func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		fmt.Fprint(w, n)
	})
	mux.HandleFunc("/download", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.ParseInt(r.FormValue("bytes"), 10, 64)
		w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
		_, _ = io.Copy(w, io.LimitReader(zeros{}, n))
	})
	return mux
}

// zeros is an endless reader of zero bytes.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
