package decisions

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"penstock/internal/resource"
	"penstock/internal/segment"
)

// Decision is one record. From and To are the same if the decision did not change the count.
type Decision struct {
	At       time.Time   `json:"at"`
	App      resource.ID `json:"app"`
	Revision string      `json:"revision"`
	// Behaviour is "fast" or "azure".
	Behaviour string `json:"behaviour"`
	// Rule is the rule that decided, with its value, its target per replica and the number of replicas that it wanted.
	// It is empty if no rule asked for a replica.
	Rule   string  `json:"rule,omitempty"`
	Value  float64 `json:"value,omitempty"`
	Target float64 `json:"target,omitempty"`
	Wanted int     `json:"wanted"`
	// Bound is what limited the count to something else than the rules wanted.
	Bound  string `json:"bound,omitempty"`
	From   int    `json:"from"`
	To     int    `json:"to"`
	Reason string `json:"reason"`
	// Forgotten marks a deletion: decisions for the app up to At are not read any more.
	Forgotten bool `json:"forgotten,omitempty"`
}

const (
	schema = "penstock-decisions 1"
	// segmentBytes and totalBytes limit the space on disk, to some 50,000 records.
	segmentBytes = 1 << 20
	totalBytes   = 16 << 20
	// age is how long records are kept.
	age = 7 * 24 * time.Hour
	// trimEvery is how often segments are checked for their age.
	trimEvery = time.Hour
	// queueLimit is the number of records that can wait for the disk. Further records are dropped and counted.
	queueLimit = 1024
	// gather is how long a record can wait for others to share its block.
	gather = time.Second
)

// Log keeps decisions. It is safe for concurrent use.
type Log struct {
	dir     string
	log     *slog.Logger
	folder  *segment.Folder
	queue   chan Decision
	lost    atomic.Uint64 // dropped, and not yet recorded in a block
	dropped atomic.Uint64 // all that were dropped since Open

	writing sync.Mutex // held during a write, so that blocks are in the order of the queue
}

// Open opens the log in dir. Records are written while Run runs, and before each Read.
func Open(dir string, log *slog.Logger) (*Log, error) {
	folder, err := segment.Open(dir, segment.Config{Schema: schema, SegmentBytes: segmentBytes, TotalBytes: totalBytes, Age: age})
	if err != nil {
		return nil, fmt.Errorf("scaling decisions: %w", err)
	}
	for _, err := range folder.PassedOver() {
		log.Warn("a segment of scaling decisions is passed over", "err", err)
	}
	return &Log{dir: dir, log: log, folder: folder, queue: make(chan Decision, queueLimit)}, nil
}

// Add queues a decision. It never blocks; if the queue is full the decision is dropped.
func (l *Log) Add(d Decision) {
	select {
	case l.queue <- d:
	default:
		l.drop(1)
	}
}

func (l *Log) drop(n uint64) {
	l.lost.Add(n)
	l.dropped.Add(n)
}

// Dropped returns the number of decisions dropped since Open.
func (l *Log) Dropped() uint64 { return l.dropped.Load() }

// Run writes queued decisions until ctx ends, and then the rest of the queue.
func (l *Log) Run(ctx context.Context) error {
	write := time.NewTicker(gather)
	defer write.Stop()
	trim := time.NewTicker(trimEvery)
	defer trim.Stop()
	l.trim()
	for {
		select {
		case <-write.C:
			l.flush()
		case <-trim.C:
			l.trim()
		case <-ctx.Done():
			l.flush()
			return nil
		}
	}
}

func (l *Log) trim() {
	if err := l.folder.Trim(time.Now()); err != nil {
		l.log.Warn("scaling decisions may be over their limit", "dir", l.dir, "err", err)
	}
}

// flush writes the queue.
func (l *Log) flush() {
	l.writing.Lock()
	defer l.writing.Unlock()
	var all []Decision
	for range len(l.queue) {
		all = append(all, <-l.queue)
	}
	if err := l.append(all...); err != nil {
		l.log.Warn("scaling decisions are dropped", "dir", l.dir, "dropped", l.Dropped(), "err", err)
	}
}

// append writes decisions as one block, or drops them. It is called with writing held.
func (l *Log) append(all ...Decision) error {
	if len(all) == 0 {
		return nil
	}
	b := segment.Block{Records: len(all), First: all[0].At, Last: all[0].At, Lost: l.lost.Swap(0)}
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	var err error
	for _, d := range all {
		if d.At.After(b.Last) {
			b.Last = d.At
		}
		err = errors.Join(err, enc.Encode(d)) // writes nothing if it fails
	}
	b.Payload = text.Bytes()
	if err == nil {
		_, err = l.folder.Append(b)
	}
	if err != nil {
		l.lost.Add(b.Lost)
		l.drop(uint64(len(all)))
	}
	return err
}

// Forget hides the decisions for an app that has been deleted. They stay on disk until their segment is removed.
func (l *Log) Forget(app resource.ID) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if segments, _ := l.folder.Extent(); segments == 0 && len(l.queue) == 0 {
		return nil
	}
	if err := l.append(Decision{At: time.Now().UTC(), App: app, Forgotten: true}); err != nil {
		return fmt.Errorf("forget scaling decisions of app %q: %w", app.Base(), err)
	}
	return nil
}

// Place is where a decision is in the order of all decisions for an app. No two have the same.
type Place struct {
	At       time.Time
	Revision string
}

// Place returns the place of d.
func (d Decision) Place() Place { return Place{d.At, d.Revision} }

// Compare returns a negative number if p comes before q, and 0 if they are the same.
func (p Place) Compare(q Place) int {
	return cmp.Or(p.At.Compare(q.At), strings.Compare(strings.ToLower(p.Revision), strings.ToLower(q.Revision)))
}

// Query selects the decisions for one app.
type Query struct {
	App    resource.ID
	Since  time.Time           // older decisions are left out; zero means no limit
	Before Place               // this decision and later ones are left out; zero means no limit
	Keep   func(Decision) bool // others are left out; nil keeps all
	Limit  int                 // returns only the newest; 0 means all
}

func (q Query) selects(d Decision) bool {
	return !d.At.Before(q.Since) && (q.Before == Place{} || d.Place().Compare(q.Before) < 0) && (q.Keep == nil || q.Keep(d))
}

// Read returns the decisions that q selects, oldest first.
func (l *Log) Read(ctx context.Context, q Query) ([]Decision, error) {
	l.flush()
	files, _, _ := l.folder.State()
	r := segment.NewReader(l.dir, schema, nil)
	defer r.Close()
	var all []Decision
	var forgotten time.Time // decisions up to here belong to an app that has been deleted
	for _, f := range files {
		// The modification time of a file comes from a coarser clock than the times of its records.
		if f.Modified.Add(time.Second).Before(q.Since) {
			continue
		}
		_, err := r.Scan(ctx, f, 0, false, func(b segment.Found) bool {
			if b.Last.Before(q.Since) {
				return true
			}
			for line := range bytes.Lines(b.Payload) {
				var d Decision
				if json.Unmarshal(line, &d) != nil || d.App.Key() != q.App.Key() || !d.At.After(forgotten) {
					continue
				}
				if d.Forgotten {
					forgotten = d.At
					all = slices.DeleteFunc(all, func(was Decision) bool { return !was.At.After(d.At) })
					continue
				}
				if q.selects(d) {
					all = append(all, d)
				}
			}
			if q.Limit > 0 && len(all) > 2*q.Limit {
				all = newest(all, q.Limit)
			}
			return true
		})
		if err != nil {
			return nil, fmt.Errorf("scaling decisions: %w", err)
		}
	}
	if n := r.Damaged(); n > 0 {
		l.log.Warn("parts of the scaling decisions are damaged and were passed over", "dir", l.dir, "parts", n)
	}
	return newest(all, q.Limit), nil
}

// newest puts decisions in their order, and returns the last n of them, or all if n is 0. Those that were made at the
// same time are recorded in any order.
func newest(all []Decision, n int) []Decision {
	slices.SortStableFunc(all, func(a, b Decision) int { return a.Place().Compare(b.Place()) })
	if n > 0 && len(all) > n {
		all = slices.Delete(all, 0, len(all)-n)
	}
	return all
}

// Close writes the rest of the queue and closes the files. Run must have ended.
func (l *Log) Close() error {
	l.flush()
	return l.folder.Close()
}
