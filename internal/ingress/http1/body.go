package http1

import (
	"bytes"
	"fmt"
	"net/http"
)

// Body tracks how much of a message's body has yet to come. The zero value is for a message without a body.
type Body struct {
	framing framing
	left    int64 // of the content-length, or of the chunk
	chunk   chunkState
	excess  int // framing bytes of chunks beyond what each chunk is allowed
	trailer http.Header
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

const (
	// maxChunkHead bounds a chunk's size line, extensions included.
	maxChunkHead = 4 << 10
	// For each chunk, chunkAllowance bytes and twice the chunk's data may be spent on framing; beyond that, maxExcess bytes in
	// all, as in net/http. This stops chunks of one byte with long extensions, which cost more than they carry.
	chunkAllowance = 16
	maxExcess      = 16 << 10
	// maxTrailer bounds a trailer, which is parsed once it is complete.
	maxTrailer = 32 << 10
)

// ByLength returns a body of n bytes.
func ByLength(n int64) Body { return Body{framing: framedLength, left: n} }

// Chunked returns a body in chunks.
func Chunked() Body { return Body{framing: framedChunks} }

// ToTheEnd returns a body that ends with its connection.
func ToTheEnd() Body { return Body{framing: framedClose} }

// Done says whether the body is complete.
func (b *Body) Done() bool { return b.done }

// Empty says whether the message has no body at all.
func (b *Body) Empty() bool {
	return b.framing == framedNone || b.framing == framedLength && b.left == 0
}

// HasLength says whether the body's length is known from the head.
func (b *Body) HasLength() bool { return b.framing == framedLength }

// Left returns how many bytes of a body with a length have yet to come.
func (b *Body) Left() int64 { return b.left }

// Trailer returns the fields after a chunked body that is done.
func (b *Body) Trailer() http.Header { return b.trailer }

// End records that the connection has ended, and says whether the body is complete.
func (b *Body) End() (whole bool) {
	b.done = b.done || b.framing == framedClose
	return b.done
}

// Take consumes the first n bytes of p, the bytes received next, and returns the part of them that is body. If it returns
// none and no error, more says whether more must be received.
func (b *Body) Take(p []byte) (data []byte, n int, more bool, err error) {
	if b.done {
		return nil, 0, false, nil
	}
	switch b.framing {
	case framedNone:
		b.done = true
		return nil, 0, false, nil
	case framedLength:
		data = b.cut(p)
		b.done = b.left == 0
		return data, len(data), !b.done, nil
	case framedClose:
		return p, len(p), true, nil
	default:
		return b.takeChunk(p)
	}
}

// cut returns at most as much of p as is left of the body.
func (b *Body) cut(p []byte) []byte {
	p = p[:min(int64(len(p)), b.left)]
	b.left -= int64(len(p))
	return p
}

func (b *Body) takeChunk(p []byte) (data []byte, n int, more bool, err error) {
	for {
		rest := p[n:]
		switch b.chunk {
		case chunkHead:
			line, took, err := chunkLine(rest)
			if err != nil || took == 0 {
				return nil, n, true, err
			}
			if b.left, err = chunkSize(line); err != nil {
				return nil, n, false, err
			}
			n += took
			b.excess = max(b.excess+took-chunkAllowance-2*int(min(b.left, maxExcess)), 0)
			if b.excess > maxExcess {
				return nil, n, false, fmt.Errorf("%w: chunks with more around the data than data", ErrMalformed)
			}
			b.chunk = chunkData
			if b.left == 0 {
				b.chunk = chunkTrailer
			}
		case chunkData:
			data = b.cut(rest)
			n += len(data)
			if b.left == 0 {
				b.chunk = chunkEnd
			}
			if len(data) > 0 || b.left > 0 {
				return data, n, true, nil
			}
		case chunkEnd:
			if len(rest) < 2 {
				return nil, n, true, nil
			}
			if rest[0] != '\r' || rest[1] != '\n' {
				return nil, n, false, fmt.Errorf("%w: a chunk is longer than its size says", ErrMalformed)
			}
			n += 2
			b.chunk = chunkHead
		case chunkTrailer:
			end, lines, err := HeadEnd(rest, MaxFields)
			if err != nil {
				return nil, n, false, err
			}
			if end > maxTrailer || end < 0 && len(rest) > maxTrailer {
				return nil, n, false, fmt.Errorf("%w: a trailer larger than %d KiB", ErrMalformed, maxTrailer>>10)
			}
			if end < 0 {
				return nil, n, true, nil
			}
			section := rest[:end]
			if bytes.Count(section, []byte("\r\n")) != lines+1 {
				return nil, n, false, fmt.Errorf("%w: a line of the trailer ends without CR", ErrMalformed)
			}
			if lines > 0 {
				if b.trailer, err = parseTrailer(string(section), lines); err != nil {
					return nil, n, false, err
				}
			}
			b.done = true
			return nil, n + end, false, nil
		}
	}
}

// chunkLine returns the first line, which ends in CR LF, and its length; 0 if its end has not come yet. Unlike in a head, a
// lone LF does not end a line, so that no two recipients disagree about where a size line ends.
func chunkLine(p []byte) (line []byte, n int, err error) {
	i := bytes.IndexByte(p, '\n')
	switch {
	case i > maxChunkHead || i < 0 && len(p) > maxChunkHead:
		return nil, 0, fmt.Errorf("%w: a chunk's size line is longer than %d bytes", ErrMalformed, maxChunkHead)
	case i < 0:
		return nil, 0, nil
	case i == 0 || p[i-1] != '\r':
		return nil, 0, fmt.Errorf("%w: a chunk's size line ends without CR", ErrMalformed)
	}
	return p[:i-1], i + 1, nil
}

// chunkSize reads "1a" or "1a;name=value".
func chunkSize(line []byte) (int64, error) {
	digits, ext, extended := bytes.Cut(line, []byte{';'})
	if extended {
		for _, ch := range ext {
			if ch < ' ' && ch != '\t' || ch == 0x7f {
				return 0, fmt.Errorf("%w: a control character in a chunk extension", ErrMalformed)
			}
		}
		digits = bytes.TrimRight(digits, " \t")
	}
	if len(digits) == 0 || len(digits) > 15 {
		return 0, fmt.Errorf("%w: chunk size %.20q, want 1 to 15 hexadecimal digits", ErrMalformed, digits)
	}
	var n int64
	for _, ch := range digits {
		switch {
		case '0' <= ch && ch <= '9':
			n = n<<4 | int64(ch-'0')
		case 'a' <= ch|0x20 && ch|0x20 <= 'f':
			n = n<<4 | int64(ch|0x20-'a'+10)
		default:
			return 0, fmt.Errorf("%w: chunk size %.20q, want 1 to 15 hexadecimal digits", ErrMalformed, digits)
		}
	}
	return n, nil
}
