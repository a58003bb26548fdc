package upstream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// body is how much of a response's body is still to come.
type body struct {
	framing framing
	left    int64 // of the content-length, or of the chunk
	chunk   chunkState
	trailer http.Header
	close   bool // the connection ends with this response
	done    bool
}

type framing int

const (
	framedNone framing = iota
	framedLength
	framedChunks
	framedClose
)

type chunkState int

const (
	chunkHead chunkState = iota
	chunkData
	chunkEnd
	chunkTrailer
)

// maxChunkHead bounds a chunk's size line, with whatever extensions it has.
const maxChunkHead = 4 << 10

// take consumes what is in the buffer. Without bytes and error, need says whether there is more to read.
func (b *body) take(c *Conn) (p []byte, need bool, err error) {
	if b.done {
		return nil, false, nil
	}
	switch b.framing {
	case framedNone:
		b.done = true
		return nil, false, nil
	case framedLength:
		p = b.cutTo(c)
		b.done = b.left == 0
		return p, !b.done, nil
	case framedClose:
		p = c.in[c.r:c.w]
		c.r = c.w
		return p, true, nil
	default:
		return b.takeChunk(c)
	}
}

// cutTo consumes at most what is left.
func (b *body) cutTo(c *Conn) []byte {
	n := min(int64(c.w-c.r), b.left)
	p := c.in[c.r : c.r+int(n)]
	c.r += int(n)
	b.left -= n
	return p
}

func (b *body) takeChunk(c *Conn) (p []byte, need bool, err error) {
	for {
		switch b.chunk {
		case chunkHead:
			line, ok, err := b.line(c, maxChunkHead)
			if err != nil || !ok {
				return nil, true, err
			}
			if b.left, err = chunkSize(line); err != nil {
				return nil, false, err
			}
			b.chunk = chunkData
			if b.left == 0 {
				b.chunk = chunkTrailer
			}
		case chunkData:
			p := b.cutTo(c)
			if b.left == 0 {
				b.chunk = chunkEnd
			}
			if len(p) > 0 || b.left > 0 {
				return p, true, nil
			}
		case chunkEnd:
			if c.w-c.r < 2 {
				return nil, true, nil
			}
			if c.in[c.r] != '\r' || c.in[c.r+1] != '\n' {
				return nil, false, fmt.Errorf("%w: a chunk is longer than its size says", ErrProtocol)
			}
			c.r += 2
			b.chunk = chunkHead
		case chunkTrailer:
			n, lines, err := headEnd(c.in[c.r:c.w])
			if err != nil {
				return nil, false, err
			}
			if n < 0 {
				return nil, true, nil
			}
			section := c.in[c.r : c.r+n]
			if bytes.Count(section, []byte("\r\n")) != lines+1 {
				return nil, false, fmt.Errorf("%w: a line of the trailer ends without CR", ErrProtocol)
			}
			if lines > 0 {
				if b.trailer, err = parseTrailer(string(section), lines); err != nil {
					return nil, false, err
				}
			}
			b.done = true
			c.r += n
			return nil, false, nil
		}
	}
}

// line consumes one that ends in CR LF. Unlike in a head, a lone LF does not do: where a size line ends must not be
// a matter of opinion.
func (b *body) line(c *Conn, limit int) (line []byte, ok bool, err error) {
	i := bytes.IndexByte(c.in[c.r:c.w], '\n')
	switch {
	case i > limit || i < 0 && c.w-c.r > limit:
		return nil, false, fmt.Errorf("%w: a chunk's size line is longer than %d bytes", ErrProtocol, limit)
	case i < 0:
		return nil, false, nil
	case i == 0 || c.in[c.r+i-1] != '\r':
		return nil, false, fmt.Errorf("%w: a chunk's size line ends without CR", ErrProtocol)
	}
	line = c.in[c.r : c.r+i-1]
	c.r += i + 1
	return line, true, nil
}

// chunkSize reads "1a" or "1a;name=value".
func chunkSize(line []byte) (int64, error) {
	digits, ext, extended := bytes.Cut(line, []byte{';'})
	if extended {
		for _, ch := range ext {
			if ch < ' ' && ch != '\t' || ch == 0x7f {
				return 0, fmt.Errorf("%w: a control character in a chunk extension", ErrProtocol)
			}
		}
		digits = bytes.TrimRight(digits, " \t")
	}
	if len(digits) == 0 || len(digits) > 15 {
		return 0, fmt.Errorf("%w: chunk size %.20q, want 1 to 15 hexadecimal digits", ErrProtocol, digits)
	}
	var n int64
	for _, ch := range digits {
		switch {
		case '0' <= ch && ch <= '9':
			n = n<<4 | int64(ch-'0')
		case 'a' <= ch|0x20 && ch|0x20 <= 'f':
			n = n<<4 | int64(ch|0x20-'a'+10)
		default:
			return 0, fmt.Errorf("%w: chunk size %.20q, want 1 to 15 hexadecimal digits", ErrProtocol, digits)
		}
	}
	return n, nil
}

// cut says what the end of the connection means inside a body.
func (b *body) cut(err error) error {
	if !errors.Is(err, io.EOF) {
		return err
	}
	if b.framing == framedClose {
		b.done, b.close = true, true
		return io.EOF
	}
	return ErrTruncated
}
