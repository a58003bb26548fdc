package front

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"time"

	"penstock/internal/ingress/http1"
)

// requestBody is read by one goroutine at a time, which need not be the handler's.
type requestBody struct {
	turn     *turn
	framed   http1.Body
	data     []byte // of the connection's buffer: the body's, and not yet read
	expected bool   // the client waits for a 100 before it sends the body; set to false under the response's mu
	err      error  // of the read that ended it
}

// Read returns what has come, or waits for more.
func (b *requestBody) Read(p []byte) (n int, err error) {
	if b.err != nil {
		return 0, b.err
	}
	if b.expected {
		if err := b.turn.response.proceed(); err != nil {
			b.err = err
			return 0, err
		}
	}
	if n, err = b.next(p); err != nil {
		b.err = err
	}
	return n, err
}

func (b *requestBody) next(p []byte) (int, error) {
	c := b.turn.conn
	for {
		if n := copy(p, b.data); n > 0 || len(p) == 0 {
			b.data = b.data[n:]
			return n, b.end()
		}
		if c.r == c.w && b.framed.HasLength() && len(p) >= len(c.in) {
			return b.direct(p)
		}
		data, took, more, err := b.framed.Take(c.in[c.r:c.w])
		c.r += took
		switch {
		case err != nil:
			return 0, err
		case len(data) > 0:
			b.data = data
			continue
		case !more:
			return 0, b.end()
		}
		if err := c.more(true); err != nil {
			return 0, broken(err)
		}
	}
}

// direct receives without a buffer in between.
func (b *requestBody) direct(p []byte) (int, error) {
	n, err := b.turn.conn.read(p[:min(int64(len(p)), b.framed.Left())])
	if n == 0 {
		return 0, broken(err)
	}
	b.framed.Take(p[:n])
	return n, b.end()
}

// broken says that a body that ends with its connection is not whole.
func broken(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// end is io.EOF when all was read.
func (b *requestBody) end() error {
	if !b.framed.Done() || len(b.data) > 0 {
		return nil
	}
	if trailer := b.framed.Trailer(); len(trailer) > 0 {
		r := &b.turn.request
		if r.Trailer == nil {
			r.Trailer = http.Header{}
		}
		maps.Copy(r.Trailer, trailer)
	}
	return io.EOF
}

// Buffered is how many bytes can be read without waiting, or a few more: chunks are not counted.
func (b *requestBody) Buffered() int {
	if !b.framed.HasLength() {
		return 0
	}
	return len(b.data) + b.turn.conn.w - b.turn.conn.r
}

// Close does nothing: what is left is the server's to read.
func (b *requestBody) Close() error { return nil }

// discard reads what the handler has left, and says whether that was all of it.
func (b *requestBody) discard() bool {
	if b.err != nil && !errors.Is(b.err, io.EOF) {
		return false
	}
	_ = b.turn.conn.setDeadline(time.Now().Add(lingerFor))
	_, err := io.CopyN(io.Discard, b, DiscardBytes+1)
	return errors.Is(err, io.EOF)
}
