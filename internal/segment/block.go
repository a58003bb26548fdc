package segment

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"time"
)

// Block is the unit of an append.
type Block struct {
	Records     int       // number of records in Payload
	Lost        uint64    // records that were dropped before this block
	First, Last time.Time // when the first and the last record were made
	// Key, if set, makes a repeated append count once; see Config.Keyed.
	Key     string
	Payload []byte
}

const (
	// headSize is the length of what comes before the key and the payload of a block: mark, checksum of the head,
	// checksum of the key and the payload, length, number of records, lost, first, last, length of the key.
	headSize = 4 + 4 + 4 + 4 + 4 + 8 + 8 + 8 + 4
	// headFrom is where the bytes begin that the checksum of the head covers.
	headFrom = 8

	// MaxPayload limits what a reader must hold in memory.
	MaxPayload = 8 << 20
	// MaxKey is the maximum length of a key.
	MaxKey = 1 << 10
)

// mark begins a block. Its first byte is not valid UTF-8, so text does not look like a block.
const mark = "\xb1PSB"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrTorn means that a block is incomplete: it is still being written, or its writer has died.
var ErrTorn = errors.New("a block is not whole")

// ErrDamaged means that the bytes of a block are not what was written.
var ErrDamaged = errors.New("a block is damaged")

// headSum returns the checksum of a head. It covers the salt of the segment and the offset of the block, so a block is
// valid only where it was written. A whole block inside a payload, sent by a client, is therefore not taken for a block
// after damage. Because the head has its own checksum, a reader that looks for the next block does not read the bytes
// behind a false mark, and its work is proportional to the size of the segment.
func headSum(head []byte, salt uint32, offset int64) uint32 {
	return crc32.Update(salt^uint32(offset), castagnoli, head[headFrom:headSize])
}

// appendHead appends the head and the key of a block to be written at offset.
func (b *Block) appendHead(p []byte, salt uint32, offset int64) []byte {
	le := binary.LittleEndian
	at := len(p)
	p = append(p, mark...)
	p = le.AppendUint32(p, 0)
	p = le.AppendUint32(p, b.sum())
	p = le.AppendUint32(p, uint32(len(b.Key)+len(b.Payload)))
	p = le.AppendUint32(p, uint32(b.Records))
	p = le.AppendUint64(p, b.Lost)
	p = le.AppendUint64(p, uint64(b.First.UnixNano()))
	p = le.AppendUint64(p, uint64(b.Last.UnixNano()))
	p = le.AppendUint32(p, uint32(len(b.Key)))
	le.PutUint32(p[at+4:], headSum(p[at:], salt, offset))
	return append(p, b.Key...)
}

// sum returns the checksum of the key and the payload.
func (b *Block) sum() uint32 {
	if b.Key == "" {
		return crc32.Checksum(b.Payload, castagnoli)
	}
	return crc32.Update(crc32.Checksum([]byte(b.Key), castagnoli), castagnoli, b.Payload)
}

// next decodes the block at the start of p, which is at offset in its segment. The payload is a slice of p.
func next(p []byte, salt uint32, offset int64) (b Block, size int, err error) {
	le := binary.LittleEndian
	if n := min(len(p), len(mark)); string(p[:n]) != mark[:n] {
		return b, 0, ErrDamaged
	}
	if len(p) < headSize {
		return b, 0, ErrTorn
	}
	length, key := le.Uint32(p[12:]), le.Uint32(p[headSize-4:])
	if headSum(p, salt, offset) != le.Uint32(p[4:]) || length > MaxPayload+MaxKey || key > min(MaxKey, length) {
		return b, 0, ErrDamaged
	}
	size = headSize + int(length)
	if len(p) < size {
		return b, 0, ErrTorn
	}
	if crc32.Checksum(p[headSize:size], castagnoli) != le.Uint32(p[8:]) {
		return b, 0, ErrDamaged
	}
	return Block{
		Records: int(le.Uint32(p[16:])), Lost: le.Uint64(p[20:]),
		First: time.Unix(0, int64(le.Uint64(p[28:]))), Last: time.Unix(0, int64(le.Uint64(p[36:]))),
		Key: string(p[headSize : headSize+key]), Payload: p[headSize+key : size],
	}, size, nil
}

// seek returns where the next block may begin in p, or -1.
func seek(p []byte) int { return bytes.Index(p, []byte(mark)) }
