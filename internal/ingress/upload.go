package ingress

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"penstock/internal/ingress/http1"
	"penstock/internal/ingress/upstream"
)

const (
	// maxKept bounds how much of a body is kept in case it must be sent again. maxKeptOnce is the bound for a body that is
	// sent again only if the replica provably received nothing, which is known early.
	maxKept     = 1 << 20
	maxKeptOnce = 64 << 10
	// continueAfter is how long a replica may take to answer "Expect: 100-continue". Many do not know it, and RFC 9110
	// section 10.1.1 forbids to wait indefinitely. curl waits as long.
	continueAfter = time.Second
	// lastWrite is how long the end of a body may take to be written after the response has come. After that the body
	// counts as one that the replica did not want.
	lastWrite = 100 * time.Millisecond

	// chunkSpace is the room for a chunk's size before its data.
	chunkSpace = 10
	uploadSize = 32 << 10

	// leastRate is how many bytes of a body must come each second that its client is waited for, after Config.BodyTimeout, where
	// places are counted: less would hold one for nothing. It is that of Apache's mod_reqtimeout. Streams of gRPC may be as
	// slow as they like.
	leastRate = 500
)

// sink is what a body is written to: a connection, or a stream of one.
type sink interface {
	io.Writer
	Abort()
}

// upload reads a request's body in a goroutine and writes it to a connection, and to the next one if that fails. It is nil
// for a request that is sent in one piece.
type upload struct {
	r       *http.Request
	chunked bool
	expects bool
	patient time.Duration // how long the client is waited for before leastRate counts; 0: for ever
	named   []string      // fields of the trailer that the client has announced; a copy, as r's is written to later
	conns   chan sink     // takes one without blocking
	allowed chan struct{} // takes one without blocking
	sent    chan struct{} // receives when the whole body was written; takes one without blocking
	over    chan struct{} // closed when the goroutine ends
	ending  atomic.Bool   // the last write has begun
	reading atomic.Bool   // the goroutine waits for the client
	read    atomic.Int64

	mu    sync.Mutex
	keep  int    // how many bytes may be kept; below 0: none any more
	kept  []byte // all that was read
	err   error  // of reading the body
	eof   bool   // the whole body was read
	whole sink   // that the whole body was written to
}

func (x *exchange) newUpload() *upload {
	u := &upload{
		r:       x.r,
		chunked: x.r.ContentLength < 0,
		expects: expectsContinue(x.r),
		named:   slices.Collect(maps.Keys(x.r.Trailer)),
		conns:   make(chan sink, 1),
		allowed: make(chan struct{}, 1),
		sent:    make(chan struct{}, 1),
		over:    make(chan struct{}),
		keep:    maxKeptOnce,
	}
	if !x.stream && x.ticket.settings.MaxConcurrency > 0 {
		u.patient = x.in.cfg.BodyTimeout
	}
	if mayResend(x.r.Method, x.ticket.settings.Retry) {
		u.keep = maxKept
	}
	go u.run()
	return u
}

// use makes the goroutine write the body to conn.
func (u *upload) use(conn sink) {
	select {
	case <-u.conns: // one that failed before anything was written to it
	default:
	}
	u.conns <- conn
}

// proceed starts a body that waits for the replica's 100.
func (u *upload) proceed() {
	if u == nil {
		return
	}
	select {
	case u.allowed <- struct{}{}:
	default:
	}
}

// failed returns why the body could not be read.
func (u *upload) failed() error {
	if u == nil {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.err
}

// unread says whether a part of the body has not been read yet.
func (u *upload) unread() bool {
	if u == nil {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return !u.eof
}

// replayable says whether all that was read could be written again.
func (u *upload) replayable() bool {
	if u == nil {
		return true
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.keep >= 0
}

// settle drops what was kept, as the response has begun.
func (u *upload) settle() {
	if u == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.keep, u.kept = -1, nil
}

// sentOn says whether the whole body was written to conn.
func (u *upload) sentOn(conn sink) bool {
	if u == nil {
		return true
	}
	u.mu.Lock()
	whole := u.whole
	u.mu.Unlock()
	if whole != conn && u.ending.Load() {
		late := time.NewTimer(lastWrite)
		defer late.Stop()
		select {
		case <-u.sent:
		case <-late.C:
		case <-u.over:
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.whole == conn
}

// endUpload stops the goroutine of the upload, wherever it is.
func (x *exchange) endUpload() {
	u := x.body
	if u == nil {
		return
	}
	close(u.conns)
	if u.unread() {
		// The upstream connection is closed, so the goroutine can only be reading. Setting the deadline fails only if the
		// client has left, and then the read fails by itself.
		_ = http.NewResponseController(x.w).SetReadDeadline(time.Now().Add(-time.Second))
	}
	<-u.over
	x.rec.BytesIn = u.read.Load()
}

// run ends when conns is closed or the body cannot be read.
func (u *upload) run() {
	defer close(u.over)
	conn, ok := <-u.conns
	if ok && u.expects {
		conn, ok = u.wait(conn)
	}
	buf := make([]byte, chunkSpace+uploadSize+2)
	waited := time.Duration(0)
	for ok {
		u.reading.Store(true)
		began := time.Now()
		n, err := u.r.Body.Read(buf[chunkSpace : chunkSpace+uploadSize])
		waited += time.Since(began)
		u.reading.Store(false)
		read := u.read.Add(int64(n))
		if err == nil && u.patient > 0 && waited > u.patient && float64(read) < leastRate*waited.Seconds() {
			err = os.ErrDeadlineExceeded
		}
		u.store(buf[chunkSpace:chunkSpace+n], errors.Is(err, io.EOF))
		if err != nil && !errors.Is(err, io.EOF) {
			u.mu.Lock()
			u.err = err
			u.mu.Unlock()
			conn.Abort() // the request can never be complete
			return
		}
		select {
		case conn, ok = <-u.conns:
			if !ok {
				return
			}
			conn, ok = u.repeat(conn, err != nil)
			continue
		default:
		}
		if u.write(conn, buf, n, err != nil) != nil || err != nil {
			conn, ok = u.next(err != nil)
		}
	}
}

// wait waits for the replica's 100, at most for continueAfter.
func (u *upload) wait(conn sink) (sink, bool) {
	late := time.NewTimer(continueAfter)
	defer late.Stop()
	for {
		select {
		case <-u.allowed:
			return conn, true
		case <-late.C:
			return conn, true
		case next, ok := <-u.conns:
			if !ok {
				return nil, false
			}
			conn = next
		}
	}
}

// next waits for another connection and writes to it what the one before has received.
func (u *upload) next(eof bool) (sink, bool) {
	conn, ok := <-u.conns
	if !ok {
		return nil, false
	}
	return u.repeat(conn, eof)
}

// repeat writes to conn what was read so far. If that fails, or if that is the whole body, it waits for the next connection.
func (u *upload) repeat(conn sink, eof bool) (sink, bool) {
	for {
		u.mu.Lock()
		kept := u.kept
		u.mu.Unlock()
		buf := make([]byte, chunkSpace+len(kept)+2)
		copy(buf[chunkSpace:], kept)
		if u.write(conn, buf, len(kept), eof) == nil && !eof {
			return conn, true
		}
		var ok bool
		if conn, ok = <-u.conns; !ok {
			return nil, false
		}
	}
}

// store keeps what was read, as long as it does not exceed the limit.
func (u *upload) store(p []byte, eof bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.eof = eof
	if len(u.kept)+len(p) > u.keep {
		u.keep, u.kept = -1, nil
		return
	}
	u.kept = append(u.kept, p...)
}

// write sends the n bytes in buf after chunkSpace, and the end of the body if last is set.
func (u *upload) write(conn sink, buf []byte, n int, last bool) error {
	p := buf[chunkSpace : chunkSpace+n]
	stream, framed := conn.(*upstream.Stream)
	if u.chunked && !framed {
		p = p[:0]
		if n > 0 {
			var size [chunkSpace]byte
			head := append(strconv.AppendInt(size[:0], int64(n), 16), "\r\n"...)
			start := chunkSpace - len(head)
			copy(buf[start:], head)
			p = append(buf[start:chunkSpace+n], "\r\n"...)
		}
		if last {
			p = u.appendEnd(p)
		}
	}
	if last {
		u.ending.Store(true)
	}
	if len(p) > 0 {
		if _, err := conn.Write(p); err != nil {
			return err
		}
	}
	if last {
		if framed {
			if err := stream.End(u.r.Trailer); err != nil {
				return err
			}
		}
		u.mu.Lock()
		u.whole = conn
		u.mu.Unlock()
		select {
		case u.sent <- struct{}{}:
		default:
		}
	}
	return nil
}

// appendEnd appends the last chunk and the trailer.
func (u *upload) appendEnd(p []byte) []byte {
	p = append(p, "0\r\n"...)
	for name, values := range u.r.Trailer {
		if http1.ForbiddenInTrailer(name) {
			continue
		}
		for _, value := range values {
			p = appendField(p, name, value)
		}
	}
	return append(p, "\r\n"...)
}
