package logs

import (
	"cmp"
	"fmt"
)

// Limits bound what a log takes on disk and in memory. Zero fields take the defaults.
type Limits struct {
	// SegmentBytes is the size at which a new segment is begun; the oldest segment is what goes when room is needed.
	// Default: 4 MiB.
	SegmentBytes int64
	// AppBytes is what one app may take. Default: 64 MiB, some 400,000 lines.
	AppBytes int64
	// TotalBytes is what all apps may take together; the app that takes most gives up its oldest segment first.
	// Default: 1 GiB.
	TotalBytes int64
	// LineBytes is the longest line that stays in one piece. Default: 64 KiB.
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
