package oci

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

const (
	// minAge is how old a name must be before it goes by itself: a revision that is being made may have found it, and
	// says that it needs it only a moment later. The kubelet's imageMinimumGCAge has the same two minutes.
	minAge = 2 * time.Minute
	// sweepEvery is how often names are looked through.
	sweepEvery = 5 * time.Minute
	// usedEvery is how exactly it is known when an image was needed last.
	usedEvery = time.Hour
	// usedLabel has when a revision was last found to need an image.
	usedLabel = "penstock/used"
)

// Policy says which images go by themselves. What was pushed under a tag that it still has never does: it may be there
// only. What a revision needs, active or not, never does either.
type Policy struct {
	// Superseded is how long stays what a tag meant before.
	Superseded time.Duration
	// Unused is how long stays what was pulled from another registry after a revision last needed it.
	Unused time.Duration
	// Limit is the bytes above which those go, oldest first, before their time; 0: there is none.
	Limit int64
}

// Collector removes what nothing needs.
type Collector struct {
	stores Stores
	images *Images
	policy Policy
	// before lets go of unpacked layers that no image has; nil: there are none.
	before func(context.Context) error
	log    *slog.Logger
	kick   chan struct{}

	sweeping sync.Mutex // one at a time
}

// NewCollector returns a collector of stores, which Run sets to work.
func NewCollector(stores Stores, policy Policy, before func(context.Context) error, log *slog.Logger) *Collector {
	return &Collector{stores: stores, images: NewImages(stores), policy: policy, before: before, log: log, kick: make(chan struct{}, 1)}
}

// Poke asks for a collection soon. It is for Stores.Freed.
func (c *Collector) Poke() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// Run collects until ctx ends.
func (c *Collector) Run(ctx context.Context) error {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.kick:
			if err := c.Collect(ctx); err != nil && ctx.Err() == nil {
				c.log.Warn("what was deleted is still on the disk; trying again with the next sweep", "err", err)
			}
		case <-ticker.C:
			pruned, err := c.Prune(ctx, Prune{Policy: c.policy})
			if err != nil && ctx.Err() == nil {
				c.log.Warn("images could not be looked through; trying again", "in", sweepEvery, "err", err)
			}
			for _, one := range pruned.Images {
				c.log.Info("image removed", "image", one.Name, "digest", one.Digest, "why", one.Why)
			}
		}
	}
}

// Collect removes what no name and no lease holds, and returns when it has.
func (c *Collector) Collect(ctx context.Context) error {
	c.sweeping.Lock()
	defer c.sweeping.Unlock()
	return c.collect(ctx)
}

// collect runs containerd's garbage collector.
func (c *Collector) collect(ctx context.Context) error {
	ctx = inNamespace(ctx)
	if c.before != nil {
		if err := c.before(ctx); err != nil {
			return fmt.Errorf("collect images: %w", err)
		}
	}
	// Its scheduler runs for whoever deletes something and waits.
	lease, err := c.stores.Leases.Create(ctx, leases.WithID("penstock-collect-"+rand.Text()), leases.WithExpiration(time.Minute))
	if err == nil {
		err = c.stores.Leases.Delete(ctx, lease, leases.SynchronousDelete)
	}
	if err != nil {
		return fmt.Errorf("collect images: %w", err)
	}
	return nil
}

// Prune says what a prune is to take.
type Prune struct {
	Policy
	// All takes also what was pushed under a tag that it still has, when no revision needs it.
	All bool
	// DryRun takes nothing and tells what would go.
	DryRun bool
}

// Pruned is what went, or would.
type Pruned struct {
	Images []PrunedImage `json:"images"`
	Bytes  int64         `json:"bytes"` // that no image is left to need
}

// PrunedImage is one name that went.
type PrunedImage struct {
	Name   string        `json:"name"`
	Digest digest.Digest `json:"digest"`
	Why    string        `json:"why"`
	Bytes  int64         `json:"bytes"` // of the image; others may share them
}

// candidate is a name that may go.
type candidate struct {
	PrunedImage
	record string
	since  time.Time // when it was of use last
	due    bool
	blobs  contents
}

// Prune removes the names that nobody needs, and what only they held.
func (c *Collector) Prune(ctx context.Context, o Prune) (Pruned, error) {
	ctx = inNamespace(ctx)
	c.sweeping.Lock()
	defer c.sweeping.Unlock()
	pruned := Pruned{Images: []PrunedImage{}}
	needed := map[digest.Digest]bool{}
	var err error
	if c.stores.Needed != nil {
		// Nothing may go while it is not known what must stay.
		if needed, err = c.stores.Needed(ctx); err != nil {
			return pruned, fmt.Errorf("prune images: %w", err)
		}
	}
	records, err := c.stores.Images.List(ctx)
	if err != nil {
		return pruned, fmt.Errorf("prune images: %w", err)
	}
	now := time.Now()
	owners := map[digest.Digest]int{}
	sizes := map[digest.Digest]int64{}
	var candidates []candidate
	there := func(d digest.Digest) bool {
		_, err := c.stores.Content.Info(ctx, d)
		return !errdefs.IsNotFound(err)
	}
	for _, record := range records {
		blobs := contents{blobs: map[digest.Digest]int64{}}
		if err := c.images.collect(ctx, record.Target, &blobs); err != nil && ctx.Err() != nil {
			return pruned, fmt.Errorf("prune images: %w", context.Cause(ctx))
		}
		for d, size := range blobs.blobs {
			owners[d]++
			sizes[d] = size
		}
		if needed[record.Target.Digest] {
			if err := c.used(ctx, record, now, o.DryRun); err != nil {
				return pruned, err
			}
			continue
		}
		if one, ok := judge(record, o, now, there); ok {
			one.blobs = blobs
			candidates = append(candidates, one)
		}
	}
	var held int64
	for _, size := range sizes {
		held += size
	}
	slices.SortStableFunc(candidates, func(a, b candidate) int { return a.since.Compare(b.since) })
	for _, one := range candidates {
		if !one.due && (o.Limit <= 0 || held <= o.Limit) {
			continue
		}
		if !o.DryRun {
			if err := ignoreNotFound(c.stores.Images.Delete(ctx, one.record)); err != nil {
				return pruned, fmt.Errorf("prune image %s: %w", one.Name, err)
			}
		}
		for d, size := range one.blobs.blobs {
			one.Bytes += size
			if owners[d]--; owners[d] == 0 {
				held -= size
				pruned.Bytes += size
			}
		}
		pruned.Images = append(pruned.Images, one.PrunedImage)
	}
	if o.DryRun || len(pruned.Images) == 0 {
		return pruned, nil
	}
	return pruned, c.collect(ctx)
}

// judge says whether a name that no revision needs may go, and since when.
func judge(record images.Image, o Prune, now time.Time, there func(digest.Digest) bool) (candidate, bool) {
	one := candidate{record: record.Name, PrunedImage: PrunedImage{Name: record.Name, Digest: record.Target.Digest}}
	if ref, ok := fromStoreName(record.Name); ok {
		one.Name = ref.String()
	}
	at := func(label string) time.Time {
		t, _ := time.Parse(time.RFC3339, record.Labels[label])
		return t
	}
	latest := func(times ...time.Time) time.Time { return slices.MaxFunc(times, time.Time.Compare) }
	superseded, pulled := at(supersededLabel), at(pulledLabel)
	subject := digest.Digest(record.Labels[subjectLabel])
	var limit time.Duration
	switch {
	case !superseded.IsZero():
		one.since, limit = latest(superseded, at(usedLabel)), o.Superseded
		one.Why = "its tag means another image now"
	case !pulled.IsZero():
		one.since, limit = latest(pulled, at(usedLabel)), o.Unused
		one.Why = "no revision needs it, and its registry has it"
	case subject != "" && !there(subject):
		one.since, limit = named(record), o.Superseded
		one.Why = "what it says something of is not here"
	case o.All && subject == "":
		one.since = latest(named(record), at(usedLabel))
		one.Why = "no revision needs it"
	default:
		return one, false
	}
	age := now.Sub(one.since)
	one.due = age >= limit
	return one, age >= minAge
}

// used notes that a revision needs an image.
func (c *Collector) used(ctx context.Context, record images.Image, now time.Time, dry bool) error {
	if before, err := time.Parse(time.RFC3339, record.Labels[usedLabel]); dry || err == nil && now.Sub(before) < usedEvery {
		return nil
	}
	record.Labels = map[string]string{usedLabel: now.UTC().Format(time.RFC3339)}
	if _, err := c.stores.Images.Update(ctx, record, "labels."+usedLabel); ignoreNotFound(err) != nil {
		return fmt.Errorf("note the use of image %s: %w", record.Name, err)
	}
	return nil
}
