package access

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
)

const (
	// blockSize is when a block is full. Strings are written once a block, so that one of some hundred records costs
	// little more a record than a larger one would.
	blockSize = 64 << 10
	// headSize is what stands before a block's records: magic, length, sum, count, dropped, base, last.
	headSize  = 4 + 4 + 4 + 4 + 8 + 8 + 8
	blockMark = 0x31425250 // "PRB1"

	// Longer strings are cut: a client chooses them, and should not choose how much room the others have.
	maxWord = 512
	maxPath = 2 << 10
	maxID   = 128
	// maxRecord is more than a record of the longest strings takes.
	maxRecord = words*(maxWord+8) + maxPath + maxID + 256
)

// Strings that records of a block have in common, each with the one of the record before.
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

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// block is filled with records and then written as it is.
type block struct {
	buf     []byte
	count   uint32
	dropped uint64 // before this block
	base    int64  // start of the first record, Unix nanoseconds
	last    int64  // end of the latest
	numbers map[string]uint64
	recent  [words]struct {
		word   string
		number uint64
	}
}

func newBlock() *block {
	b := &block{buf: make([]byte, headSize, blockSize), numbers: map[string]uint64{}}
	return b
}

// reset makes the block empty.
func (b *block) reset() {
	*b = block{buf: b.buf[:headSize], numbers: b.numbers}
	clear(b.numbers)
}

// fits says whether any record has room.
func (b *block) fits() bool { return len(b.buf)+maxRecord <= blockSize }

// add appends a record, for which fits has said that there is room.
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

// word appends the number of a string that the block has, or 0 and the string.
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

// seal completes the head and returns the bytes of the block.
func (b *block) seal() []byte {
	le := binary.LittleEndian
	h := b.buf[:headSize]
	le.PutUint32(h[0:], blockMark)
	le.PutUint32(h[4:], uint32(len(b.buf)-headSize))
	le.PutUint32(h[12:], b.count)
	le.PutUint64(h[16:], b.dropped)
	le.PutUint64(h[24:], uint64(b.base))
	le.PutUint64(h[32:], uint64(b.last))
	le.PutUint32(h[8:], crc32.Checksum(b.buf[12:], castagnoli))
	return b.buf
}

var (
	// errTorn means that the rest of a block is not there: it is being written, or its writer has died.
	errTorn    = errors.New("a block is not whole")
	errDamaged = errors.New("a block is damaged")
)

// sealed is a block as it is read.
type sealed struct {
	count   uint32
	dropped uint64
	base    int64
	last    int64
	payload string
}

// blockLength reads how long a block is from its head.
func blockLength(head []byte) (int, error) {
	size := binary.LittleEndian.Uint32(head[4:])
	if binary.LittleEndian.Uint32(head) != blockMark || size > blockSize-headSize {
		return 0, errDamaged
	}
	return headSize + int(size), nil
}

// readBlock takes the first block off p.
func readBlock(p []byte) (b sealed, rest []byte, err error) {
	if len(p) < headSize {
		return b, p, errTorn
	}
	size, err := blockLength(p)
	if err != nil {
		return b, p, err
	}
	le := binary.LittleEndian
	switch {
	case len(p) < size:
		return b, p, errTorn
	case crc32.Checksum(p[12:size], castagnoli) != le.Uint32(p[8:]):
		return b, p, errDamaged
	}
	b = sealed{
		count: le.Uint32(p[12:]), dropped: le.Uint64(p[16:]), base: int64(le.Uint64(p[24:])), last: int64(le.Uint64(p[32:])),
		payload: string(p[headSize:size]),
	}
	return b, p[size:], nil
}

// records yields the records of the block, each valid until the next one, until yield says no. What a later version has added to one is passed over.
func (b sealed) records(yield func(*Record) bool) error {
	all := make([]string, 1, 64) // by number
	rest := b.payload
	var r Record
	for range b.count {
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
		r.Start = time.Unix(0, b.base+c.signed())
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

// cursor reads a record. After a failure all that it returns is zero.
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
