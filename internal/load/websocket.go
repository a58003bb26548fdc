package load

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"strings"
	"time"
)

// webSocket opens a WebSocket for each request (RFC 6455), sends the body as a message, waits for its echo as often as
// asked, and closes. Its first byte is that of the handshake's answer; each echo is an event, its gap the round trip.
//
// github.com/coder/websocket was measured in its place: it added 9 µs to a round trip of 45, 38 µs to a handshake of
// 124 and a quarter to the processor time of both (BenchmarkWebSocket). A generator must not show its own cost as the
// server's.
type webSocket struct{ *http1 }

// acceptGUID is of RFC 6455 1.3.
const acceptGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

const (
	opContinue = 0
	opText     = 1
	opBinary   = 2
	opClose    = 8
	opPing     = 9
	opPong     = 10
	final      = 0x80
	masked     = 0x80
)

func (w webSocket) send(ctx context.Context, s *scratch, body []byte, rec *Record) {
	deadline := w.watch.wall(rec.Sent + w.req.Timeout)
	c, at, err := w.dial(ctx, rec, deadline)
	if err != nil {
		fail(rec, w.watch.now(), err, at)
		return
	}
	defer w.drop(c)
	if err := w.open(c, s, rec); err != nil {
		at = waiting
		if rec.FirstByte > 0 {
			at = answering
		}
		fail(rec, w.watch.now(), err, at)
		return
	}
	if rec.Status != http.StatusSwitchingProtocols {
		rec.LastByte, rec.Error, rec.Detail = w.watch.now(), Status, fmt.Sprintf("want 101, got %d", rec.Status)
		return
	}
	c.left = 1 << 62
	f := &frames{c: c}
	for range max(1, w.req.Messages) {
		began := w.watch.now()
		if err := f.write(opBinary, body); err != nil {
			fail(rec, w.watch.now(), err, answering)
			return
		}
		rec.BytesOut += int64(len(body))
		echo, err := f.message(len(body))
		now := w.watch.now()
		if err != nil {
			fail(rec, now, err, answering)
			return
		}
		rec.Bytes += int64(len(echo))
		if !bytes.Equal(echo, body) {
			rec.LastByte, rec.Error, rec.Detail = now, Content, fmt.Sprintf("echo of %d bytes is not what was sent: %d bytes", len(body), len(echo))
			return
		}
		if rec.Events == 0 {
			rec.FirstEvent = now
		}
		s.gap(now - began)
		rec.LongestGap = max(rec.LongestGap, now-began)
		rec.Events++
		rec.LastByte = now
	}
	if err := f.close(); err != nil {
		fail(rec, w.watch.now(), err, answering)
	}
}

// open does the handshake.
func (w webSocket) open(c *conn1, s *scratch, rec *Record) error {
	var nonce [16]byte
	rand.Read(nonce[:])
	key := base64.StdEncoding.EncodeToString(nonce[:])
	s.out = append(s.out[:0], w.head...)
	s.out = append(s.out, "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "+key+"\r\n\r\n"...)
	if _, err := c.Write(s.out); err != nil {
		return err
	}
	if _, err := c.br.Peek(1); err != nil {
		return err
	}
	rec.FirstByte = w.watch.now()
	resp, err := http.ReadResponse(c.br, w.plain)
	if err != nil {
		return err
	}
	rec.Status = resp.StatusCode
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return nil
	}
	sum := sha1.Sum([]byte(key + acceptGUID))
	if want := base64.StdEncoding.EncodeToString(sum[:]); resp.Header.Get("Sec-WebSocket-Accept") != want {
		return fmt.Errorf("Sec-WebSocket-Accept: want %s, got %q", want, resp.Header.Get("Sec-WebSocket-Accept"))
	}
	if !strings.EqualFold(resp.Header.Get("Upgrade"), "websocket") {
		return fmt.Errorf("upgrade: want websocket, got %q", resp.Header.Get("Upgrade"))
	}
	return nil
}

// frames reads and writes those of a client.
type frames struct {
	c   *conn1
	out []byte
	in  []byte
}

// write sends a frame, masked as a client's must be.
func (f *frames) write(op byte, payload []byte) error {
	f.out = append(f.out[:0], final|op)
	switch n := len(payload); {
	case n < 126:
		f.out = append(f.out, masked|byte(n))
	case n < 1<<16:
		f.out = binary.BigEndian.AppendUint16(append(f.out, masked|126), uint16(n))
	default:
		f.out = binary.BigEndian.AppendUint64(append(f.out, masked|127), uint64(n))
	}
	var mask [4]byte
	binary.BigEndian.PutUint32(mask[:], mathrand.Uint32())
	f.out = append(f.out, mask[:]...)
	for i, b := range payload {
		f.out = append(f.out, b^mask[i&3])
	}
	_, err := f.c.Write(f.out)
	return err
}

var (
	errEnded = errors.New("server closed the WebSocket")
	errFrame = errors.New("frame breaks RFC 6455")
)

// message reads one of up to limit bytes, in however many frames, and answers pings in between.
func (f *frames) message(limit int) ([]byte, error) {
	f.in = f.in[:0]
	for began := false; ; {
		op, last, payload, err := f.read(limit - len(f.in))
		if err != nil {
			return nil, err
		}
		switch {
		case op == opPing:
			if err := f.write(opPong, payload); err != nil {
				return nil, err
			}
			continue
		case op == opPong:
			continue
		case op == opClose:
			return nil, errEnded
		case (op == opText || op == opBinary) && !began, op == opContinue && began:
		default:
			return nil, fmt.Errorf("%w: kind %d", errFrame, op)
		}
		began = true
		f.in = append(f.in, payload...)
		if last {
			return f.in, nil
		}
	}
}

// read reads a frame whose payload has up to limit bytes; those of a control frame may always be 125.
func (f *frames) read(limit int) (op byte, last bool, payload []byte, err error) {
	var head [10]byte
	if _, err := io.ReadFull(f.c.br, head[:2]); err != nil {
		return 0, false, nil, err
	}
	op, last = head[0]&0x0f, head[0]&final != 0
	size := uint64(head[1] &^ masked)
	if head[0]&0x70 != 0 || head[1]&masked != 0 {
		return 0, false, nil, fmt.Errorf("%w: reserved bits or a mask", errFrame)
	}
	if op >= opClose && (size > 125 || !last) {
		return 0, false, nil, fmt.Errorf("%w: a long control frame", errFrame)
	}
	switch size {
	case 126:
		_, err = io.ReadFull(f.c.br, head[:2])
		size = uint64(binary.BigEndian.Uint16(head[:2]))
	case 127:
		_, err = io.ReadFull(f.c.br, head[:8])
		size = binary.BigEndian.Uint64(head[:8])
	}
	if err != nil {
		return 0, false, nil, err
	}
	if op < opClose && size > uint64(limit) {
		return 0, false, nil, fmt.Errorf("%w: %d bytes where %d were sent", errFrame, size, limit)
	}
	payload = make([]byte, size)
	_, err = io.ReadFull(f.c.br, payload)
	return op, last, payload, err
}

// closeWait bounds how long the end of a WebSocket may take.
const closeWait = time.Second

// close does the closing handshake.
func (f *frames) close() error {
	normal := binary.BigEndian.AppendUint16(nil, 1000)
	if err := f.write(opClose, normal); err != nil {
		return err
	}
	if err := f.c.SetReadDeadline(time.Now().Add(closeWait)); err != nil {
		return err
	}
	for {
		op, _, _, err := f.read(0)
		if err != nil || op == opClose {
			return err
		}
	}
}
