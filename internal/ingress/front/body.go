package front

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"time"

	"penstock/internal/ingress/http1"
)

// requestBody is the body of a request. One goroutine at a time may read it, which need not be the handler's.
type requestBody struct {
	exchange *exchange
	framed   http1.Body
	data     []byte // the part of the connection's buffer that belongs to the body and was not read yet
	expected bool   // the client waits for a 100 before it sends the body; set to false under the response's mu
	err      error  // of the last read
}

// Read returns received bytes, or waits for some.
func (b *requestBody) Read(p []byte) (n int, err error) {
	if b.err != nil {
		return 0, b.err
	}
	if b.expected {
		if err := b.exchange.response.proceed(); err != nil {
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
	c := b.exchange.conn
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

// direct reads from the connection into p, without a buffer in between.
func (b *requestBody) direct(p []byte) (int, error) {
	n, err := b.exchange.conn.read(p[:min(int64(len(p)), b.framed.Left())])
	if n == 0 {
		return 0, broken(err)
	}
	b.framed.Take(p[:n])
	return n, b.end()
}

// broken returns the error for a body that was cut by the end of the connection.
func broken(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// end returns io.EOF once all was read.
func (b *requestBody) end() error {
	if !b.framed.Done() || len(b.data) > 0 {
		return nil
	}
	if trailer := b.framed.Trailer(); len(trailer) > 0 {
		r := &b.exchange.request
		if r.Trailer == nil {
			r.Trailer = http.Header{}
		}
		maps.Copy(r.Trailer, trailer)
	}
	return io.EOF
}

// Buffered returns how many bytes can be read without waiting, or slightly more, as it counts the framing of chunks.
func (b *requestBody) Buffered() int {
	if !b.framed.HasLength() {
		return 0
	}
	return len(b.data) + b.exchange.conn.w - b.exchange.conn.r
}

// Close does nothing: the server reads the rest.
func (b *requestBody) Close() error { return nil }

// discard reads the rest of the body, and says whether it reached the end.
func (b *requestBody) discard() bool {
	if b.err != nil && !errors.Is(b.err, io.EOF) {
		return false
	}
	_ = b.exchange.conn.setDeadline(time.Now().Add(lingerFor))
	_, err := io.CopyN(io.Discard, b, DiscardBytes+1)
	return errors.Is(err, io.EOF)
}
