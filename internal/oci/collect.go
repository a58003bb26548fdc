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
	// minAge is how old a name must be before it is removed automatically. A revision that is being created may have
	// resolved it, and is registered as using it only a moment later. The kubelet's imageMinimumGCAge is two minutes as
	// well.
	minAge = 2 * time.Minute
	// sweepEvery is how often names are checked.
	sweepEvery = 5 * time.Minute
	// usedEvery is how precisely the time of an image's last use is recorded.
	usedEvery = time.Hour
	// usedLabel has the time when a revision was last found to need an image.
	usedLabel = "penstock/used"
)

// Policy says which images are removed automatically. Images that were pushed and still have their tag are never
// removed, because they may exist nowhere else. Images that a revision needs, active or not, are never removed either.
type Policy struct {
	// Superseded is how long the previous image of a tag is kept.
	Superseded time.Duration
	// Unused is how long an image from another registry is kept after a revision last needed it.
	Unused time.Duration
	// Limit is the total size in bytes above which these images are removed early, oldest first. 0 means no limit.
	Limit int64
}

// Collector removes images that nothing needs.
type Collector struct {
	stores Stores
	images *Images
	policy Policy
	// before releases unpacked layers that no image has. It can be nil.
	before func(context.Context) error
	log    *slog.Logger
	kick   chan struct{}

	sweeping sync.Mutex // only one sweep runs at a time
}

// NewCollector returns a collector for stores. It works while Run runs.
func NewCollector(stores Stores, policy Policy, before func(context.Context) error, log *slog.Logger) *Collector {
	return &Collector{stores: stores, images: NewImages(stores), policy: policy, before: before, log: log, kick: make(chan struct{}, 1)}
}

// Poke requests a collection soon. It is meant for Stores.Freed.
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

// Collect removes what no name and no lease holds. It returns when that is done.
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
	// containerd's scheduler collects when a lease is deleted with a request to wait.
	lease, err := c.stores.Leases.Create(ctx, leases.WithID("penstock-collect-"+rand.Text()), leases.WithExpiration(time.Minute))
	if err == nil {
		err = c.stores.Leases.Delete(ctx, lease, leases.SynchronousDelete)
	}
	if err != nil {
		return fmt.Errorf("collect images: %w", err)
	}
	return nil
}

// Prune configures a prune.
type Prune struct {
	Policy
	// All also removes images that were pushed and still have their tag, if no revision needs them.
	All bool
	// DryRun only reports what would be removed.
	DryRun bool
}

// Pruned is what was removed, or would be.
type Pruned struct {
	Images []PrunedImage
	Bytes  int64 // size of the blobs that no image has any more
}

// PrunedImage is one name that was removed.
type PrunedImage struct {
	Name   string
	Digest digest.Digest
	Why    string
	Bytes  int64 // size of the image; other images may share its blobs
}

// candidate is a name that may be removed.
type candidate struct {
	PrunedImage
	record string
	since  time.Time // when it was last used
	due    bool
	blobs  contents
}

// Prune removes the names that nothing needs, with the blobs that only they held.
func (c *Collector) Prune(ctx context.Context, o Prune) (Pruned, error) {
	ctx = inNamespace(ctx)
	c.sweeping.Lock()
	defer c.sweeping.Unlock()
	pruned := Pruned{Images: []PrunedImage{}}
	needed := map[digest.Digest]bool{}
	var err error
	if c.stores.Needed != nil {
		// Remove nothing unless it is known what must be kept.
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

// judge reports whether a name that no revision needs may be removed, and since when it has been unused.
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

// used records that a revision needs an image.
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
