package accesslog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"penstock/internal/segment"
)

const (
	// blockSize is the size at which a block is full. Each string is written once per block. With some hundred records
	// per block this costs little more per record than in larger blocks.
	blockSize = 64 << 10

	// maxWord is the length at which strings are cut. Clients choose them and must not use up the space for other
	// records.
	maxWord = 512
	maxPath = 2 << 10
	maxID   = 128
	// maxRecord is an upper limit for the size of a record with the longest strings.
	maxRecord = words*(maxWord+8) + maxPath + maxID + 256
)

// The kinds of strings in a record. A string is first compared with the last one of its kind, because records often
// have strings in common.
const (
	wordApp = iota
	wordRevision
	wordReplica
	wordUpstream
	wordHost
	wordScheme
	wordProto
	wordMethod
	wordAgent
	wordClient
	wordForwarded
	words
)

// block collects records, which become the payload of a segment's block.
type block struct {
	buf     []byte
	count   uint32
	dropped uint64 // records that were dropped before this block
	base    int64  // start of the first record, in Unix nanoseconds
	last    int64  // end of the latest record
	numbers map[string]uint64
	recent  [words]struct {
		word   string
		number uint64
	}
}

func newBlock() *block {
	b := &block{buf: make([]byte, 0, blockSize), numbers: map[string]uint64{}}
	return b
}

// reset empties the block.
func (b *block) reset() {
	*b = block{buf: b.buf[:0], numbers: b.numbers}
	clear(b.numbers)
}

// fits reports whether there is room for any record.
func (b *block) fits() bool { return len(b.buf)+maxRecord <= blockSize }

// add appends a record. The caller checks fits first.
func (b *block) add(r *Record) {
	start := r.Start.UnixNano()
	if b.count == 0 {
		b.base = start
	}
	b.last = max(b.last, start+int64(r.Duration))
	b.count++
	at := len(b.buf)
	p := append(b.buf, 0, 0)
	p = b.word(p, wordApp, r.App)
	p = b.word(p, wordRevision, r.Revision)
	p = b.word(p, wordReplica, r.Replica)
	p = b.word(p, wordUpstream, r.Upstream)
	p = b.word(p, wordHost, r.Host)
	p = b.word(p, wordScheme, r.Scheme)
	p = b.word(p, wordProto, r.Proto)
	p = b.word(p, wordMethod, r.Method)
	p = b.word(p, wordAgent, r.UserAgent)
	p = b.word(p, wordClient, r.Client)
	p = b.word(p, wordForwarded, r.Forwarded)
	p = text(p, r.Path, maxPath)
	p = text(p, r.RequestID, maxID)
	p = binary.AppendVarint(p, start-b.base)
	p = binary.AppendUvarint(p, r.Connection)
	p = number(p, int64(r.Attempts))
	p = number(p, int64(r.Status))
	p = number(p, r.BytesIn)
	p = number(p, r.BytesOut)
	p = number(p, int64(r.Flags))
	p = number(p, int64(r.Held))
	p = number(p, int64(r.FirstByte))
	p = number(p, int64(r.Duration))
	binary.LittleEndian.PutUint16(p[at:], uint16(len(p)-at-2))
	b.buf = p
}

// word appends the number of a string that is in the block already, or 0 and the string.
func (b *block) word(p []byte, kind int, s string) []byte {
	recent := &b.recent[kind]
	if recent.number > 0 && recent.word == s {
		return binary.AppendUvarint(p, recent.number)
	}
	if len(s) > maxWord {
		s = s[:maxWord]
	}
	n := b.numbers[s]
	if n == 0 {
		n = uint64(len(b.numbers)) + 1
		b.numbers[s] = n
		p = text(append(p, 0), s, maxWord)
	} else {
		p = binary.AppendUvarint(p, n)
	}
	recent.word, recent.number = s, n
	return p
}

func text(p []byte, s string, limit int) []byte {
	if len(s) > limit {
		s = s[:limit]
	}
	return append(binary.AppendUvarint(p, uint64(len(s))), s...)
}

func number(p []byte, n int64) []byte { return binary.AppendUvarint(p, uint64(max(n, 0))) }

// seal returns the collected records as a block for a segment.
func (b *block) seal() segment.Block {
	return segment.Block{
		Records: int(b.count), Lost: b.dropped, First: time.Unix(0, b.base), Last: time.Unix(0, b.last), Payload: b.buf,
	}
}

var errDamaged = errors.New("a record is damaged")

// records calls yield for the records of a block until it returns false. Each is valid until the next call. Fields that
// a later version has added to a record are skipped.
func records(b *segment.Block, yield func(*Record) bool) error {
	all := make([]string, 1, 64) // by number
	rest := string(b.Payload)
	base := b.First.UnixNano()
	var r Record
	for range b.Records {
		r = Record{}
		if len(rest) < 2 {
			return errDamaged
		}
		size := int(rest[0]) | int(rest[1])<<8
		if len(rest) < 2+size {
			return errDamaged
		}
		c := cursor{text: rest[2 : 2+size], words: all}
		rest = rest[2+size:]
		for _, field := range [words]*string{
			wordApp: &r.App, wordRevision: &r.Revision, wordReplica: &r.Replica, wordUpstream: &r.Upstream, wordHost: &r.Host,
			wordScheme: &r.Scheme, wordProto: &r.Proto, wordMethod: &r.Method, wordAgent: &r.UserAgent, wordClient: &r.Client,
			wordForwarded: &r.Forwarded,
		} {
			*field = c.word()
		}
		r.Path, r.RequestID = c.string(), c.string()
		r.Start = time.Unix(0, base+c.signed())
		r.Connection = c.unsigned()
		r.Attempts, r.Status = int(c.unsigned()), int(c.unsigned())
		r.BytesIn, r.BytesOut = int64(c.unsigned()), int64(c.unsigned())
		r.Flags = Flags(c.unsigned())
		r.Held, r.FirstByte, r.Duration = time.Duration(c.unsigned()), time.Duration(c.unsigned()), time.Duration(c.unsigned())
		if c.failed {
			return fmt.Errorf("%w: a record ends too early", errDamaged)
		}
		all = c.words
		if !yield(&r) {
			return nil
		}
	}
	return nil
}

// cursor reads a record. After an error everything it returns is zero.
type cursor struct {
	text   string
	words  []string
	failed bool
}

func (c *cursor) unsigned() (n uint64) {
	for shift := 0; shift < 64; shift += 7 {
		if c.text == "" {
			break
		}
		b := c.text[0]
		c.text = c.text[1:]
		n |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return n
		}
	}
	c.failed = true
	return 0
}

func (c *cursor) signed() int64 {
	u := c.unsigned()
	return int64(u>>1) ^ -int64(u&1)
}

func (c *cursor) string() string {
	n := c.unsigned()
	if n > uint64(len(c.text)) {
		c.failed, n = true, 0
	}
	s := c.text[:n]
	c.text = c.text[n:]
	return s
}

func (c *cursor) word() string {
	n := c.unsigned()
	switch {
	case c.failed:
		return ""
	case n == 0:
		s := c.string()
		c.words = append(c.words, s)
		return s
	case n >= uint64(len(c.words)):
		c.failed = true
		return ""
	}
	return c.words[n]
}
