package logs

import (
	"bytes"
	"encoding/json"
	"regexp"

	"penstock/internal/resource"
	"penstock/internal/segment"
)

// The first version of this format used text files with one JSON object per line. The first line is a header; the other
// lines are the records that are now in blocks.

// oldSchemas maps each current schema to the format name in the header of the first version.
var oldSchemas = map[string]string{consoleSchema: "penstock-console", systemSchema: "penstock-system"}

type oldHeader struct {
	Format  string      `json:"format"`
	Version int         `json:"version"`
	App     resource.ID `json:"app"`
}

var oldName = regexp.MustCompile(`^\d{8}\.log$`)

// oldSegments describes the first version of a schema.
func oldSegments(schema string) *segment.Old {
	return &segment.Old{
		Name: oldName,
		Begin: func(start []byte) (meta string, offset int, ok bool) {
			line, _, ok := bytes.Cut(start, []byte("\n"))
			var h oldHeader
			if !ok || json.Unmarshal(line, &h) != nil || h.Format != oldSchemas[schema] || h.Version != 1 {
				return "", 0, false
			}
			return h.App.String(), len(line) + 1, true
		},
		Next: oldLines,
		Seek: func(p []byte) int {
			if i := bytes.IndexByte(p, '\n'); i >= 0 && i+1 < len(p) {
				return i + 1
			}
			return -1
		},
	}
}

// oldLines decodes the whole lines at the start of p as if they were a block.
func oldLines(p []byte) (b segment.Block, size int, err error) {
	const most = 64 << 10
	size = bytes.LastIndexByte(p[:min(len(p), most)], '\n') + 1
	if size == 0 {
		size = bytes.IndexByte(p, '\n') + 1
	}
	switch {
	case size == 0 && len(p) > segment.MaxPayload:
		return b, 0, segment.ErrDamaged
	case size == 0:
		return b, 0, segment.ErrTorn
	}
	return segment.Block{Payload: p[:size]}, size, nil
}
