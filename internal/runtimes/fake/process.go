package fake

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"penstock/internal/resource"
	"penstock/internal/runtimes/local"
)

// process is a started container: a server that ends once.
type process struct {
	spec        local.Container
	behaviour   behaviour
	addr        netip.AddrPort
	pid         int
	revision    resource.ID
	disk        disk
	outOfMemory func()
	memory      uint64 // bytes that it is said to use; the driver's mu guards it

	over     chan exited // the first end that is requested
	term     chan struct{}
	closed   chan struct{} // its connections are closed
	gone     chan struct{} // it has ended and the driver knows that
	termOnce sync.Once
	// requests is read-locked by each request, and locked to wait until all requests have ended.
	requests sync.RWMutex
	hung     atomic.Bool

	mu        sync.Mutex
	open      []netip.AddrPort // the ports on which it listens
	readyFrom time.Time
	frozen    chan struct{}    // closed when it is resumed; nil unless it is frozen
	pending   []syscall.Signal // signals that arrived while it was frozen
}

// exited describes how a process ended.
type exited struct {
	code int
	oom  bool
}

func newProcess(s *sandbox, c local.Container, b behaviour, pid int) *process {
	return &process{
		spec: c, behaviour: b, addr: netip.AddrPortFrom(s.addr, uint16(b.port)), pid: pid, revision: s.Revision, disk: s.disk, memory: 1 << 20,
		over: make(chan exited, 1), term: make(chan struct{}), closed: make(chan struct{}), gone: make(chan struct{}),
	}
}

// finish ends the process, unless it is ending already.
func (p *process) finish(how exited) {
	select {
	case p.over <- how:
	default:
	}
}

func (p *process) freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.frozen == nil {
		p.frozen = make(chan struct{})
	}
}

func (p *process) thaw() {
	p.mu.Lock()
	pending := p.pending
	p.pending = nil
	if p.frozen != nil {
		close(p.frozen)
		p.frozen = nil
	}
	p.mu.Unlock()
	for _, s := range pending {
		p.signal(s)
	}
}

func (p *process) isFrozen() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.frozen != nil
}

// whileFrozen waits until the process is not frozen.
func (p *process) whileFrozen() {
	p.mu.Lock()
	frozen := p.frozen
	p.mu.Unlock()
	if frozen == nil {
		return
	}
	select {
	case <-frozen:
	case <-p.closed:
	}
}

func (p *process) signal(s syscall.Signal) {
	p.mu.Lock()
	if p.frozen != nil {
		p.pending = append(p.pending, s)
		p.mu.Unlock()
		return
	}
	p.mu.Unlock()
	switch s {
	case syscall.SIGKILL:
		p.finish(exited{code: 128 + int(s)})
	case syscall.SIGTERM:
		p.termOnce.Do(func() { close(p.term) })
	}
}

// run runs the process until it ends, and returns how it ended.
func (p *process) run(console local.Console) exited {
	out, closeOut := p.output(console, "stdout")
	defer closeOut()
	errs, closeErrs := p.output(console, "stderr")
	defer closeErrs()

	server := &http.Server{Handler: p.handler(out), ErrorLog: log.New(io.Discard, "", 0)}
	var serving sync.WaitGroup
	var opening, ending <-chan time.Time
	opening = time.After(p.behaviour.startDelay)
	if p.behaviour.exits {
		ending = time.After(p.behaviour.exitAfter)
	}
	if p.behaviour.exits && p.behaviour.exitAfter == 0 {
		opening = nil // it ends before it has opened a port
	}
	if p.behaviour.also != 0 {
		if ln, err := p.listen(p.behaviour.also); err != nil {
			fmt.Fprintln(errs, err)
		} else {
			serving.Go(func() { _ = server.Serve(ln) })
		}
	}
	term := p.term
	var how exited
	for done := false; !done; {
		select {
		case how = <-p.over:
			done = true
		case <-ending:
			p.finish(exited{code: p.behaviour.exitCode})
		case <-opening:
			ln, err := p.listen(p.behaviour.port)
			if err != nil {
				fmt.Fprintln(errs, err)
				p.finish(exited{code: 1})
				continue
			}
			p.readyFrom = time.Now().Add(p.behaviour.readyAfter)
			fmt.Fprintf(out, "listening on %s\n", p.addr)
			serving.Go(func() { _ = server.Serve(ln) })
		case <-term:
			term = nil
			fmt.Fprintln(out, "SIGTERM")
			if p.behaviour.deaf {
				continue
			}
			serving.Go(func() {
				// Requests in progress are completed first. When the process is killed, Close interrupts this.
				_ = server.Shutdown(context.Background())
				p.finish(exited{code: 0})
			})
		}
	}
	_ = server.Close()
	close(p.closed)
	serving.Wait()
	p.requests.Lock()
	defer p.requests.Unlock()
	fmt.Fprintf(out, "ended with code %d\n", how.code)
	return how
}

// listen opens a port.
func (p *process) listen(port int) (net.Listener, error) {
	at := netip.AddrPortFrom(p.addr.Addr(), uint16(port))
	ln, err := net.Listen("tcp", at.String())
	if err == nil {
		p.mu.Lock()
		p.open = append(p.open, at)
		p.mu.Unlock()
	}
	return ln, err
}

// listening returns the ports that it has opened.
func (p *process) listening() []netip.AddrPort {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.open)
}

// output returns the writer for a stream.
func (p *process) output(console local.Console, stream string) (w io.Writer, closeStream func()) {
	if console == nil {
		return io.Discard, func() {}
	}
	to := console.Open(local.Output{
		Revision: p.revision, Replica: p.spec.Replica, Container: p.spec.Name, ID: p.spec.ID, Stream: stream,
	})
	return to, func() { _ = to.Close() }
}

func (p *process) handler(out io.Writer) http.Handler {
	b := p.behaviour
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.requests.RLock()
		defer p.requests.RUnlock()
		p.whileFrozen()
		select {
		case <-p.closed:
			return
		default:
		}
		switch r.URL.Path {
		case b.crashOn:
			p.finish(exited{code: b.exitCode})
			<-p.closed
			return
		case b.oomOn:
			p.finish(exited{code: 128 + int(syscall.SIGKILL), oom: true})
			<-p.closed
			return
		case b.childOOMOn:
			p.outOfMemory()
		case b.hangOn:
			p.hung.Store(true)
		}
		if p.hung.Load() {
			<-p.closed
			return
		}
		if time.Now().Before(p.readyFrom) {
			http.Error(w, "loading", http.StatusServiceUnavailable)
			return
		}
		p.answer(w, r)
		fmt.Fprintf(out, "%s %s\n", r.Method, r.URL.Path)
	})
}

// maxDelayText is long enough for any duration.
const maxDelayText = 64

// answer responds as the request asks.
func (p *process) answer(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	text := query.Get("delay")
	if text == "body" {
		b, err := io.ReadAll(io.LimitReader(r.Body, maxDelayText))
		if err != nil {
			return // the client has disconnected
		}
		text = string(b)
	}
	delay, err := time.ParseDuration(text)
	if err != nil && query.Has("delay") {
		http.Error(w, fmt.Sprintf("delay: want a duration such as 200ms, got %q", text), http.StatusBadRequest)
		return
	}
	pause := func() bool {
		select {
		case <-time.After(delay):
			return true
		case <-r.Context().Done():
		case <-p.closed:
		}
		return false
	}
	w.Header().Set("X-Replica", p.spec.Replica)
	if events, err := strconv.Atoi(query.Get("events")); err == nil {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range events {
			if !pause() {
				return
			}
			fmt.Fprintf(w, "data: %d\n\n", i)
			_ = http.NewResponseController(w).Flush() // if the client has disconnected, the next pause ends
		}
		return
	}
	if !pause() {
		return
	}
	if r.URL.Path == "/file" {
		text, ok := p.disk.read(p.spec, query.Get("path"))
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = io.WriteString(w, text)
		return
	}
	if status, err := strconv.Atoi(query.Get("status")); err == nil && status >= 200 && status <= 599 {
		w.WriteHeader(status)
	}
	if r.ContentLength == 0 {
		fmt.Fprintf(w, "hello from %s\n", p.spec.Replica)
		return
	}
	if typ := r.Header.Get("Content-Type"); typ != "" {
		w.Header().Set("Content-Type", typ)
	}
	// The body is echoed while it arrives.
	_ = http.NewResponseController(w).EnableFullDuplex()
	_, _ = io.Copy(w, r.Body)
}
