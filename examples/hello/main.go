// Hello is a small web server that says hello. On request it misbehaves (takes memory, uses CPU, prints, exits, inspects its
// surroundings), to show how a container runtime deals with that.
package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Getenv)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "hello:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, getenv func(string) string) error {
	if len(args) == 2 && args[0] == "exit" { // end at once
		code, err := strconv.Atoi(args[1])
		if err != nil {
			return fmt.Errorf("exit: want a code, got %q", args[1])
		}
		fmt.Println("exiting with", code)
		os.Exit(code)
	}
	if len(args) == 1 && args[0] == "cat" { // copy stdin to stdout
		_, err := io.Copy(os.Stdout, os.Stdin)
		return err
	}
	if len(args) == 1 && args[0] == "size" { // print the terminal's size
		return size(ctx)
	}
	if len(args) == 1 && args[0] == "env" {
		fmt.Println(strings.Join(os.Environ(), "\n"))
		return nil
	}
	if len(args) == 3 && args[0] == "write" { // write a file
		return os.WriteFile(args[1], []byte(args[2]), 0o644)
	}
	if len(args) == 1 && args[0] == "deaf" { // ignore SIGTERM
		signal.Ignore(syscall.SIGTERM)
	}
	s := &server{name: cmp.Or(getenv("NAME"), "world")}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.hello)
	mux.HandleFunc("GET /env", s.env)
	mux.HandleFunc("GET /count", s.count)
	mux.HandleFunc("GET /proto", s.proto)
	mux.HandleFunc("GET /file", s.file)
	mux.HandleFunc("GET /events", s.events)
	mux.HandleFunc("GET /hang", s.hang)
	mux.HandleFunc("/pause", s.pause)
	mux.HandleFunc("GET /stream", s.stream)
	mux.HandleFunc("POST /eat", s.eat)
	mux.HandleFunc("POST /spin", s.spin)
	mux.HandleFunc("POST /print", s.print)
	mux.HandleFunc("POST /write", s.write)
	mux.HandleFunc("POST /exit", s.exit)
	mux.HandleFunc("GET /dial", s.dial)
	mux.HandleFunc("GET /get", s.get)
	mux.HandleFunc("GET /lookup", s.lookup)
	mux.HandleFunc("POST /try", s.try)
	mux.HandleFunc("POST /threads", s.threads)
	web := &http.Server{Addr: ":" + cmp.Or(getenv("PORT"), "8080"), Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	serve := web.ListenAndServe
	if len(args) == 1 && args[0] == "tls" { // serve TLS with a self-signed certificate
		cert, err := selfSigned()
		if err != nil {
			return fmt.Errorf("make a certificate: %w", err)
		}
		web.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}}
		serve = func() error { return web.ListenAndServeTLS("", "") }
	}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	wg.Go(func() {
		<-ctx.Done()
		drain, done := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer done()
		web.Shutdown(drain)
	})
	fmt.Println("listening on", web.Addr)
	err := serve()
	cancel()
	wg.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

type server struct {
	name string

	mu    sync.Mutex
	eaten [][]byte
	asked int
}

func (s *server) hello(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintf(w, "hello, %s\n", s.name)
}

// count responds with how often it was requested since the program started.
func (s *server) count(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	fmt.Fprintln(w, s.asked)
}

// proto responds with the protocol of the request.
func (s *server) proto(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintln(w, r.Proto, r.TLS != nil)
}

// env responds with the environment, one variable per line.
func (s *server) env(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintln(w, strings.Join(os.Environ(), "\n"))
}

// events responds with a stream of ?n= events, ?ms= apart. Each event is the Unix time in nanoseconds.
func (s *server) events(w http.ResponseWriter, r *http.Request) {
	n, ok := number(w, r, "n")
	if !ok {
		return
	}
	ms, ok := number(w, r, "ms")
	if !ok {
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	to := http.NewResponseController(w)
	for range n {
		fmt.Fprintf(w, "data: %d\n\n", time.Now().UnixNano())
		if to.Flush() != nil {
			return
		}
		select {
		case <-time.After(time.Duration(ms) * time.Millisecond):
		case <-r.Context().Done():
			return
		}
	}
}

// file responds with the content of ?path=.
func (s *server) file(w http.ResponseWriter, r *http.Request) {
	b, err := os.ReadFile(r.FormValue("path"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	w.Write(b)
}

// hang never responds.
func (s *server) hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// pause responds after ?ms=.
func (s *server) pause(w http.ResponseWriter, r *http.Request) {
	ms, ok := number(w, r, "ms")
	if !ok {
		return
	}
	select {
	case <-time.After(time.Duration(ms) * time.Millisecond):
		fmt.Fprintf(w, "paused for %d ms\n", ms)
	case <-r.Context().Done():
	}
}

// stream responds with a line every 50 ms for ?ms=.
func (s *server) stream(w http.ResponseWriter, r *http.Request) {
	ms, ok := number(w, r, "ms")
	if !ok {
		return
	}
	for i := range ms / 50 {
		fmt.Fprintln(w, "line", i)
		http.NewResponseController(w).Flush()
		select {
		case <-time.After(50 * time.Millisecond):
		case <-r.Context().Done():
			return
		}
	}
	fmt.Fprintln(w, "end")
}

// eat allocates ?mb= of memory and keeps it.
func (s *server) eat(w http.ResponseWriter, r *http.Request) {
	mb, ok := number(w, r, "mb")
	if !ok {
		return
	}
	const page = 4096
	for range mb {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += page {
			b[i] = 1 // memory is allocated only when it is written to
		}
		s.mu.Lock()
		s.eaten = append(s.eaten, b)
		s.mu.Unlock()
	}
	fmt.Fprintf(w, "ate %d MiB\n", mb)
}

// spin uses all CPU that it can get on every core for ?ms=.
func (s *server) spin(w http.ResponseWriter, r *http.Request) {
	ms, ok := number(w, r, "ms")
	if !ok {
		return
	}
	until := time.Now().Add(time.Duration(ms) * time.Millisecond)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for time.Now().Before(until) && r.Context().Err() == nil {
			}
		})
	}
	wg.Wait()
	fmt.Fprintf(w, "spun for %d ms\n", ms)
}

// print writes ?lines= numbered lines of ?text= to standard output, and the same to standard error.
func (s *server) print(w http.ResponseWriter, r *http.Request) {
	lines, ok := number(w, r, "lines")
	if !ok {
		return
	}
	for i := range lines {
		fmt.Fprintf(os.Stdout, "%s %d\n", r.FormValue("text"), i)
		fmt.Fprintf(os.Stderr, "%s %d\n", r.FormValue("text"), i)
	}
	fmt.Fprintf(w, "printed %d lines\n", lines)
}

// write creates a file of ?mb= at ?path=.
func (s *server) write(w http.ResponseWriter, r *http.Request) {
	mb, ok := number(w, r, "mb")
	if !ok {
		return
	}
	f, err := os.Create(r.FormValue("path"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	for range mb {
		if err == nil {
			_, err = f.Write(make([]byte, 1<<20))
		}
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		http.Error(w, err.Error(), http.StatusInsufficientStorage)
		return
	}
	fmt.Fprintf(w, "wrote %d MiB\n", mb)
}

// exit responds and then ends the program with ?code=.
func (s *server) exit(w http.ResponseWriter, r *http.Request) {
	code, ok := number(w, r, "code")
	if !ok {
		return
	}
	const bye = "bye\n"
	w.Header().Set("Content-Length", strconv.Itoa(len(bye))) // the response is complete even though the server ends before closing it
	fmt.Fprint(w, bye)
	http.NewResponseController(w).Flush()
	time.AfterFunc(time.Duration(max(0, optional(r, "after")))*time.Millisecond, func() { os.Exit(code) })
}

// dial connects to ?to= and responds 200 if that succeeds.
func (s *server) dial(w http.ResponseWriter, r *http.Request) {
	c, err := net.DialTimeout("tcp", r.FormValue("to"), 2*time.Second)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	c.Close()
	fmt.Fprintln(w, "connected")
}

// get requests ?url=, with ?host= as the Host header if given, and responds with the received status and body. It does not
// verify certificates, because those of other apps are from the server's own authority.
func (s *server) get(w http.ResponseWriter, r *http.Request) {
	q, err := http.NewRequestWithContext(r.Context(), http.MethodGet, r.FormValue("url"), nil)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	q.Host = r.FormValue("host")
	c := &http.Client{
		Timeout:       10 * time.Second,
		Transport:     &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := c.Do(q)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	w.WriteHeader(resp.StatusCode)
	io.Copy(w, resp.Body)
}

// lookup responds with the addresses of ?name=, one per line.
func (s *server) lookup(w http.ResponseWriter, r *http.Request) {
	addrs, err := net.DefaultResolver.LookupHost(r.Context(), r.FormValue("name"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	fmt.Fprintln(w, strings.Join(addrs, "\n"))
}

func optional(r *http.Request, name string) int {
	n, err := strconv.Atoi(r.FormValue(name))
	if err != nil {
		return 0
	}
	return n
}

func number(w http.ResponseWriter, r *http.Request, name string) (int, bool) {
	n, err := strconv.Atoi(r.FormValue(name))
	if err != nil || n < 0 {
		http.Error(w, fmt.Sprintf("%s: want a number from 0, got %q", name, r.FormValue(name)), http.StatusBadRequest)
		return 0, false
	}
	return n, true
}
