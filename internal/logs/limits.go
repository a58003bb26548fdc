package logs

import (
	"cmp"
	"fmt"
)

// Limits limit the disk space and memory of a log. Zero fields take the defaults.
type Limits struct {
	// SegmentBytes is the size at which a new segment is begun. Old segments are removed as a whole. Default: 4 MiB.
	SegmentBytes int64
	// AppBytes is the disk space of one app. Default: 64 MiB, some 400,000 lines.
	AppBytes int64
	// TotalBytes is the disk space of all apps together. The app with the most data loses its oldest segment first.
	// Default: 1 GiB.
	TotalBytes int64
	// LineBytes is the maximum length of a line. Longer lines are split. Default: 64 KiB.
	LineBytes int
}

func (l Limits) withDefaults() Limits {
	return Limits{
		SegmentBytes: cmp.Or(l.SegmentBytes, 4<<20),
		AppBytes:     cmp.Or(l.AppBytes, 64<<20),
		TotalBytes:   cmp.Or(l.TotalBytes, 1<<30),
		LineBytes:    cmp.Or(l.LineBytes, 64<<10),
	}
}

func (l Limits) validate() error {
	if l.LineBytes < 16 || l.LineBytes > 1<<20 {
		return fmt.Errorf("log limits: LineBytes: want 16 B to 1 MiB, got %d", l.LineBytes)
	}
	if l.SegmentBytes < 1<<10 || l.AppBytes < l.SegmentBytes || l.TotalBytes < l.AppBytes {
		return fmt.Errorf("log limits: want 1 KiB <= SegmentBytes <= AppBytes <= TotalBytes, got %d, %d, %d", l.SegmentBytes, l.AppBytes, l.TotalBytes)
	}
	return nil
}
