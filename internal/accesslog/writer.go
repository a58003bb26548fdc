package accesslog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"penstock/internal/segment"
)

// Limits limit the disk space of the records of all ingresses. Zero fields take the defaults.
type Limits struct {
	// SegmentBytes is the size at which a segment is closed. Old segments are removed as a whole. Default: 8 MiB.
	SegmentBytes int64
	// TotalBytes is the limit for all segments together. Default: 256 MiB, some two million records.
	TotalBytes int64
	// Age is how long a segment is kept after its last record. Default: 7 days.
	Age time.Duration
}

func (l Limits) withDefaults() Limits {
	return Limits{
		SegmentBytes: cmp.Or(l.SegmentBytes, 8<<20),
		TotalBytes:   cmp.Or(l.TotalBytes, 256<<20),
		Age:          cmp.Or(l.Age, 7*24*time.Hour),
	}
}

const (
	// flushAfter is how long a record can wait for others to share its block.
	flushAfter = 250 * time.Millisecond
	// queueBlocks is the number of blocks that can wait for the disk: 4 MiB, one second of 30,000 records.
	queueBlocks = 64
	// maxShards limits the memory of blocks that are being filled.
	maxShards = 8
	// trimEvery is how often old segments are removed.
	trimEvery = 10 * time.Minute
	// warnEvery is the minimum time between warnings about a disk that takes no records.
	warnEvery = time.Minute
)

// Writer stores records in its own segments.
type Writer struct {
	dir string
	log *slog.Logger

	shards []shard
	full   chan *block
	free   chan *block
	wake   chan struct{} // receives when a shard has begun a block; has room for one element
	lost   atomic.Uint64 // dropped, and not yet recorded in a block
	drops  atomic.Uint64 // all that were dropped

	segments *segment.Folder
	warned   time.Time // only used by the goroutine in Run
}

// shard holds a block for one goroutine at a time. It has its own cache line.
type shard struct {
	mu    sync.Mutex
	block *block // nil if none is begun
	_     [48]byte
}

// NewWriter returns a writer, and creates the folder if it does not exist. Records are written while Run runs.
func NewWriter(dir string, limits Limits, log *slog.Logger) (*Writer, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("access records: %w", err)
	}
	shards := 1
	for shards < runtime.GOMAXPROCS(0) && shards < maxShards {
		shards *= 2
	}
	limits = limits.withDefaults()
	return &Writer{
		dir: dir, log: log,
		segments: segment.New(dir, segment.Config{
			Schema: schema, SegmentBytes: limits.SegmentBytes, TotalBytes: limits.TotalBytes, Age: limits.Age, Old: oldSegments,
		}),
		shards: make([]shard, shards),
		full:   make(chan *block, queueBlocks),
		free:   make(chan *block, 4),
		wake:   make(chan struct{}, 1),
	}, nil
}

// Add stores a copy of r. It never waits for the disk; if there is no room the record is dropped.
func (w *Writer) Add(r *Record) {
	s := &w.shards[rand.Uint32()&uint32(len(w.shards)-1)]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.block != nil && !s.block.fits() {
		select {
		case w.full <- s.block:
			s.block = nil
		default:
			w.lost.Add(1)
			w.drops.Add(1)
			return
		}
	}
	if s.block == nil {
		s.block = w.take()
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
	s.block.add(r)
}

// Dropped returns the number of records that were not stored.
func (w *Writer) Dropped() uint64 { return w.drops.Load() }

func (w *Writer) take() *block {
	select {
	case b := <-w.free:
		return b
	default:
		return newBlock()
	}
}

func (w *Writer) give(b *block) {
	b.reset()
	select {
	case w.free <- b:
	default:
	}
}

// Run writes records until ctx ends, and then the rest. It is called once.
func (w *Writer) Run(ctx context.Context) {
	due := time.NewTimer(flushAfter)
	due.Stop()
	defer due.Stop()
	waits := false
	trim := time.NewTicker(trimEvery)
	defer trim.Stop()
	w.trim(time.Now())
	for {
		select {
		case b := <-w.full:
			w.write(b)
		case <-w.wake:
			if !waits {
				due.Reset(flushAfter)
				waits = true
			}
		case <-due.C:
			waits = false
			w.flush()
		case now := <-trim.C:
			w.trim(now)
		case <-ctx.Done():
			w.flush()
			w.close()
			return
		}
	}
}

// flush writes all records that were added before.
func (w *Writer) flush() {
	for len(w.full) > 0 {
		w.write(<-w.full)
	}
	for i := range w.shards {
		s := &w.shards[i]
		s.mu.Lock()
		b := s.block
		s.block = nil
		s.mu.Unlock()
		if b != nil {
			w.write(b)
		}
	}
}

// write appends a block to the segment. If that fails the records are dropped.
func (w *Writer) write(b *block) {
	defer w.give(b)
	b.dropped = w.lost.Swap(0)
	now := time.Now()
	_, err := w.segments.Append(b.seal())
	if err != nil {
		w.lost.Add(b.dropped + uint64(b.count))
		w.drops.Add(uint64(b.count))
	} else if b.dropped > 0 {
		err = errSlow
	}
	if err != nil && now.Sub(w.warned) >= warnEvery {
		w.warned = now
		w.log.Warn("access records are dropped; the next ones are tried again", "dir", w.dir, "dropped", w.drops.Load(), "err", err)
	}
}

var errSlow = errors.New("the disk is slower than requests come")

// close closes the current segment.
func (w *Writer) close() {
	if err := w.segments.Close(); err != nil {
		w.log.Warn("access records may be missing", "dir", w.dir, "err", err)
	}
}

// trim removes segments that are too old.
func (w *Writer) trim(now time.Time) {
	if err := w.segments.Trim(now); err != nil {
		w.log.Warn("access records may be over their limit", "dir", w.dir, "err", err)
	}
}
