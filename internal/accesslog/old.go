package accesslog

import (
	"encoding/binary"
	"hash/crc32"
	"regexp"
	"strings"
	"time"

	"penstock/internal/segment"
)

// schema is the name and version of the payload format.
const schema = "penstock-requests 2"

// The first version had its own file and block format. The records in a block are the same. Its segments are read until
// they are too old. An ingress of the old version may still be writing one after this version has started.
const (
	oldStart = "penstock-requests 1\n"
	oldMark  = "PRB1"
	// oldHead is the length of what comes before a block's records: mark, length, sum, count, dropped, base, last.
	oldHead = 4 + 4 + 4 + 4 + 8 + 8 + 8
)

var oldSegments = &segment.Old{
	Name: regexp.MustCompile(`^\d{8}T\d{6}\.\d{6}-(\d+)\.requests$`),
	Begin: func(start []byte) (meta string, offset int, ok bool) {
		return "", len(oldStart), strings.HasPrefix(string(start), oldStart)
	},
	Next: oldBlock,
	// A client could send bytes that look like a block, so everything after a damaged block counts as lost.
	Seek: func([]byte) int { return -1 },
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// oldBlock decodes the block at the start of p.
func oldBlock(p []byte) (b segment.Block, size int, err error) {
	le := binary.LittleEndian
	if len(p) < oldHead {
		return b, 0, segment.ErrTorn
	}
	length := le.Uint32(p[4:])
	if string(p[:4]) != oldMark || length > blockSize {
		return b, 0, segment.ErrDamaged
	}
	size = oldHead + int(length)
	switch {
	case len(p) < size:
		return b, 0, segment.ErrTorn
	case crc32.Checksum(p[12:size], castagnoli) != le.Uint32(p[8:]):
		return b, 0, segment.ErrDamaged
	}
	return segment.Block{
		Records: int(le.Uint32(p[12:])), Lost: le.Uint64(p[16:]),
		First: time.Unix(0, int64(le.Uint64(p[24:]))), Last: time.Unix(0, int64(le.Uint64(p[32:]))), Payload: p[oldHead:size],
	}, size, nil
}
