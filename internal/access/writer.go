package access

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
)

// Limits bound what the records of all ingresses take on disk. Zero fields take the defaults.
type Limits struct {
	// SegmentBytes is the size at which a segment is closed; the oldest segment is what goes when room is needed.
	// Default: 8 MiB.
	SegmentBytes int64
	// TotalBytes is what all segments may take. Default: 256 MiB, some two million records.
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
	// flushAfter is how long a record may wait for others to share a block with.
	flushAfter = 250 * time.Millisecond
	// queueBlocks bounds the blocks that wait for the disk: 4 MiB, a second of 30,000 records.
	queueBlocks = 64
	// maxShards bounds the memory of blocks that are being filled.
	maxShards = 8
	// trimEvery is how often it is looked for segments that are too old.
	trimEvery = 10 * time.Minute
	// warnEvery is how often somebody is told of a disk that takes no records.
	warnEvery = time.Minute
)

// Writer takes records and has them written to segments of its own.
type Writer struct {
	dir    string
	limits Limits
	log    *slog.Logger

	shards []shard
	full   chan *block
	free   chan *block
	wake   chan struct{} // receives when a shard has begun a block; takes one without blocking
	lost   atomic.Uint64 // dropped and not yet written down
	drops  atomic.Uint64 // all that were dropped

	segment *os.File // of the goroutine in Run
	size    int64
	warned  time.Time
}

// shard is where one of several goroutines adds a record at a time. It has a cache line of its own.
type shard struct {
	mu    sync.Mutex
	block *block // nil: none is begun
	_     [48]byte
}

// NewWriter makes the folder when it is not there. Records are written while Run runs.
func NewWriter(dir string, limits Limits, log *slog.Logger) (*Writer, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("access records: %w", err)
	}
	shards := 1
	for shards < runtime.GOMAXPROCS(0) && shards < maxShards {
		shards *= 2
	}
	return &Writer{
		dir: dir, limits: limits.withDefaults(), log: log,
		shards: make([]shard, shards),
		full:   make(chan *block, queueBlocks),
		free:   make(chan *block, 4),
		wake:   make(chan struct{}, 1),
	}, nil
}

// Add takes a copy of r. It never waits for the disk: what there is no room for is dropped.
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

// Dropped counts the records that were not kept.
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

// Run writes what Add takes until ctx ends, and then what is left. It is called once.
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

// flush writes what has been added before.
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

// write appends a block to the segment. What the disk does not take is dropped.
func (w *Writer) write(b *block) {
	defer w.give(b)
	b.dropped = w.lost.Swap(0)
	now := time.Now()
	err := w.append(b.seal(), now)
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

func (w *Writer) append(p []byte, now time.Time) error {
	if w.segment != nil && w.size+int64(len(p)) > w.limits.SegmentBytes {
		w.close()
		w.trim(now)
	}
	if w.segment == nil {
		f, err := createSegment(w.dir, now)
		if err != nil {
			return err
		}
		w.segment, w.size = f, int64(len(segmentHead))
	}
	if _, err := w.segment.Write(p); err != nil {
		// Readers stop at the torn block, so nothing may follow it.
		w.close()
		return err
	}
	w.size += int64(len(p))
	return nil
}

func (w *Writer) close() {
	if w.segment == nil {
		return
	}
	if err := w.segment.Close(); err != nil {
		w.log.Warn("access records may be missing", "segment", w.segment.Name(), "err", err)
	}
	w.segment = nil
}

// trim removes the oldest segments of all ingresses, as far as the limits demand it, but not that of this writer.
func (w *Writer) trim(now time.Time) {
	all, err := segments(w.dir)
	if err != nil {
		w.log.Warn("access records may be over their limit", "dir", w.dir, "err", err)
		return
	}
	total := w.limits.SegmentBytes // that of the one that is being written, or is about to be
	for _, s := range all {
		total += s.size
	}
	for _, s := range all {
		if w.segment != nil && s.path == w.segment.Name() {
			continue
		}
		if total <= w.limits.TotalBytes && now.Sub(s.written) <= w.limits.Age {
			continue
		}
		if err := os.Remove(s.path); err != nil && !errors.Is(err, os.ErrNotExist) {
			w.log.Warn("access records may be over their limit", "dir", w.dir, "err", err)
			continue
		}
		total -= s.size
	}
}
