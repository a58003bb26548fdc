package ingress

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"penstock/internal/ingress/upstream"
)

// tunnelSize is the buffer of one direction. Messages of a WebSocket are small, and tunnels stay open for long. A buffer
// that gets full is replaced with one of tunnelLarge, so that large transfers need fewer system calls.
const (
	tunnelSize  = 4 << 10
	tunnelLarge = 64 << 10
)

// tunnel joins the two connections after the replica has agreed to switch protocols.
func (x *exchange) tunnel(conn *upstream.Conn, head upstream.Head) (v verdict, clean bool, err error) {
	if !x.websocket || !strings.EqualFold(head.Upgrade, "websocket") {
		return over, false, fmt.Errorf("%w: 101 to a request for no upgrade", upstream.ErrProtocol)
	}
	front, buffered, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		return over, false, errWrite{err}
	}
	defer front.Close()
	x.in.count(x.client).tunnelled.Add(1)
	x.rec.Status, x.committed = head.Status, true

	x.mark(x.w.Header())
	b := append(x.out[:0], "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"...)
	for name, values := range x.w.Header() {
		for _, value := range values {
			b = appendField(b, name, value)
		}
	}
	x.out = append(b, "\r\n"...)
	early, back := conn.Raw()
	x.out = append(x.out, early...)
	// Peek cannot fail for bytes that are buffered.
	first, _ := buffered.Reader.Peek(buffered.Reader.Buffered())

	j := joint{silence: x.ticket.settings.IdleTimeout}
	j.moved.Store(time.Now().UnixNano())
	var wg sync.WaitGroup
	wg.Go(func() { x.rec.BytesIn, _ = j.pipe(back, front, first, func(time.Time) {}) })
	x.rec.BytesOut, _ = j.pipe(front, back, x.out, conn.Answered)
	wg.Wait()
	return over, false, nil
}

// joint is two connections, each of which is copied to the other.
type joint struct {
	silence time.Duration
	moved   atomic.Int64 // when a byte last moved, Unix nanoseconds
}

// errSend wraps a failure to write.
type errSend struct{ error }

func (e errSend) Unwrap() error { return e.error }

// pipe writes first to dst, then copies from src to dst. At the end of src it closes the writing half of dst, so that the
// other direction can go on, and returns no error. On a failure it closes both; an errSend is from dst, any other error from
// src. It calls came when bytes have come from src.
func (j *joint) pipe(dst, src net.Conn, first []byte, came func(time.Time)) (total int64, failed error) {
	buf := make([]byte, tunnelSize)
	p := first
	var readBy, writeBy time.Time
	for {
		if len(p) > 0 {
			j.extend(&writeBy, dst.SetWriteDeadline)
			n, err := dst.Write(p)
			total += int64(n)
			if err != nil {
				failed = errSend{err}
				break
			}
			j.moved.Store(time.Now().UnixNano())
			if len(p) == len(buf) && len(buf) < tunnelLarge {
				buf = make([]byte, tunnelLarge)
			}
		}
		j.extend(&readBy, src.SetReadDeadline)
		n, err := src.Read(buf)
		p = buf[:n]
		if n > 0 {
			now := time.Now()
			j.moved.Store(now.UnixNano())
			came(now)
			continue
		}
		if errors.Is(err, os.ErrDeadlineExceeded) && j.stillMoves() {
			continue
		}
		if half, ok := dst.(interface{ CloseWrite() error }); ok && errors.Is(err, io.EOF) && half.CloseWrite() == nil {
			return total, nil
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				failed = err
			}
			break
		}
	}
	dst.Close()
	src.Close()
	return total, failed
}

// extend moves a deadline to when the tunnel will have been silent for too long. A deadline that is up to a quarter earlier
// stays, which is cheaper than one for each message. It fails on a closed connection only.
func (j *joint) extend(by *time.Time, set func(time.Time) error) {
	if j.silence <= 0 {
		return
	}
	end := time.Unix(0, j.moved.Load()).Add(j.silence)
	if end.Sub(*by) > j.silence/4 || !by.After(time.Now()) {
		*by = end
		_ = set(end)
	}
}

func (j *joint) stillMoves() bool { return time.Since(time.Unix(0, j.moved.Load())) < j.silence }
