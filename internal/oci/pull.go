package oci

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"penstock/internal/oci/remote"
)

const (
	// maxFetches bounds the blobs that come in at a time, over all images: enough to fill a line, few enough that none
	// waits long for its turn on it. containerd and Docker take three an image.
	maxFetches = 4
	// asideManifests bounds the images of an index that are looked into because it does not say what they are for.
	asideManifests = 16
	// knownFor is how long an answer about a tag counts, so that the check of a write and the reconciliation right
	// after it mean the same and ask once.
	knownFor = 30 * time.Second
	// askLimit bounds the questions of Resolve to a registry, with all their tries.
	askLimit = 15 * time.Second
)

// Puller brings images from other registries into the store.
//
// A name without a registry's host is this server's own and never leaves the machine. One with a host is looked for in
// the store first: an image that was pushed here under that name stands for the registry's. What was pulled before is
// used as it is when it is asked for by digest; a tag is asked for again.
type Puller struct {
	stores  Stores
	images  *Images
	client  *remote.Client
	free    func() (int64, error)
	log     *slog.Logger
	fetches *semaphore.Weighted

	mu    sync.Mutex
	known map[string]answer        // by name and login
	turns map[string]chan struct{} // by image or blob that is on its way
	pulls map[*pulling]struct{}
}

// answer is what a registry said a tag means.
type answer struct {
	digest digest.Digest
	at     time.Time
}

// NewPuller returns a puller into stores. free tells the bytes that the store's disk has left; nil: it is not asked.
func NewPuller(stores Stores, client *remote.Client, free func() (int64, error), log *slog.Logger) *Puller {
	return &Puller{
		stores: stores, images: NewImages(stores), client: client, free: free, log: log, fetches: semaphore.NewWeighted(maxFetches),
		known: map[string]answer{}, turns: map[string]chan struct{}{}, pulls: map[*pulling]struct{}{},
	}
}

// Resolve says which image a name means now, without pulling it. It fails with ErrNotFound, ErrPlatform, or
// remote.ErrUnauthorized, and otherwise when its registry cannot be reached in time.
func (p *Puller) Resolve(ctx context.Context, name string, login remote.Login) (digest.Digest, error) {
	ctx = inNamespace(ctx)
	ref, err := ParseReference(name)
	if err != nil {
		return "", err
	}
	local, err := p.images.Resolve(ctx, name)
	if ref.Host == "" || err == nil && (ref.Digest != "" || local.Record.Labels[pulledLabel] == "") {
		return local.Digest, err
	}
	here := err == nil
	if !here && errors.Is(err, ErrPlatform) && local.Record.Labels[pulledLabel] == "" {
		return "", err
	}
	key := ref.String() + " " + login.Key()
	p.mu.Lock()
	known := p.known[key]
	p.mu.Unlock()
	if known.digest != "" && time.Since(known.at) < knownFor {
		return known.digest, nil
	}
	asking, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	found, err := p.choose(asking, ref, login)
	if err != nil {
		if here && ctx.Err() == nil && remote.Again(err) {
			p.log.Warn("a registry cannot be asked what a tag means; it stays what was pulled", "image", ref.String(), "digest", local.Digest, "err", err)
			return local.Digest, nil
		}
		return "", p.fault(ref, err)
	}
	p.mu.Lock()
	if len(p.known) > 1000 {
		clear(p.known)
	}
	p.known[key] = answer{found.target.Digest, time.Now()}
	p.mu.Unlock()
	return found.target.Digest, nil
}

// fault is an error of a registry in the words of this package's callers.
func (p *Puller) fault(ref Reference, err error) error {
	switch {
	case errors.Is(err, remote.ErrNotFound):
		return notFoundError(fmt.Sprintf("image %q: neither in this server's store nor in its registry: %v", ref, err))
	case errors.Is(err, ErrPlatform):
		return platformError(fmt.Sprintf("image %q: %v", ref, err))
	}
	return fmt.Errorf("image %q: %w", ref, err)
}

// chosen is an image as its registry has it, and the part of it that this machine runs.
type chosen struct {
	target ocispec.Descriptor // what the tag means: an index or an image
	raw    []byte
	parsed manifest
	// children are the manifests of an index that come along: of the image for this machine.
	children []part
	image    manifest // for this machine
}

// part is a manifest within an index.
type part struct {
	desc   ocispec.Descriptor
	raw    []byte
	parsed manifest
}

// choose asks a registry what a name means, and finds in it what this machine runs.
func (p *Puller) choose(ctx context.Context, ref Reference, login remote.Login) (chosen, error) {
	asked := ref.Tag
	if ref.Digest != "" {
		asked = ref.Digest.String()
	}
	top, err := p.ask(ctx, ref, asked, login)
	if err != nil {
		return chosen{}, err
	}
	found := chosen{target: top.desc, raw: top.raw, parsed: top.parsed, image: top.parsed}
	if !top.parsed.index {
		return found, p.suits(ctx, ref, top.parsed, login)
	}
	var offered []string
	aside := 0
	for _, child := range top.parsed.children {
		if images.IsIndexType(child.MediaType) {
			return chosen{}, errNested
		}
		if child.Platform != nil && (child.Platform.OS == "unknown" || !p.images.runs(*child.Platform)) {
			if child.Platform.OS != "unknown" {
				offered = append(offered, platforms.Format(*child.Platform))
			}
			continue
		}
		if child.Platform == nil {
			if aside++; aside > asideManifests {
				return chosen{}, fmt.Errorf("want an index that says what its images are for, got more than %d without a platform", asideManifests)
			}
		}
		of, err := p.ask(ctx, ref, child.Digest.String(), login)
		if err != nil {
			return chosen{}, err
		}
		if of.parsed.index {
			return chosen{}, errNested
		}
		of.desc.Platform = child.Platform
		found.children = append(found.children, of)
		found.image = of.parsed
		err = p.suits(ctx, ref, of.parsed, login)
		if wrong, ok := errors.AsType[platformError](err); ok {
			offered = append(offered, string(wrong))
			continue
		}
		return found, err
	}
	if len(offered) == 0 {
		return chosen{}, errors.New("want an index with an image in it, got one without")
	}
	return chosen{}, p.images.wrongPlatform(strings.Join(offered, ", "))
}

// ask reads one manifest of a registry.
func (p *Puller) ask(ctx context.Context, ref Reference, tagOrDigest string, login remote.Login) (part, error) {
	var got remote.Manifest
	err := retry(ctx, func() (progress bool, err error) {
		got, err = p.client.Manifest(ctx, ref.Host, ref.Repository, tagOrDigest, login)
		return false, err
	})
	if err != nil {
		return part{}, err
	}
	parsed, err := parseManifest(got.Raw, got.MediaType)
	if err != nil {
		return part{}, fmt.Errorf("manifest %s of %s: %w", got.Digest, ref.Host, err)
	}
	desc := ocispec.Descriptor{MediaType: parsed.mediaType, Digest: got.Digest, Size: int64(len(got.Raw))}
	return part{desc, got.Raw, parsed}, nil
}

// suits reads an image's config, which comes along, and says whether this machine runs it.
func (p *Puller) suits(ctx context.Context, ref Reference, m manifest, login remote.Login) error {
	if !images.IsConfigType(m.config.MediaType) {
		return fmt.Errorf("want a container image, got an artifact with config %q", clip(m.config.MediaType))
	}
	if m.config.Size > maxManifest {
		return fmt.Errorf("config: want at most %d bytes, got %d", maxManifest, m.config.Size)
	}
	lease, err := p.lease(ctx, m.config.Digest)
	if err != nil {
		return err
	}
	if err := p.fetch(leases.WithLease(ctx, lease.ID), ref, m.config, login, &pulling{}); err != nil {
		return err
	}
	raw, err := p.stores.read(ctx, m.config)
	if err != nil {
		return err
	}
	config, err := parseConfig(raw, len(m.layers))
	if err != nil {
		return fmt.Errorf("config %s: %w", m.config.Digest, err)
	}
	if !p.images.runs(config.Platform) {
		return p.images.wrongPlatform(platforms.Format(config.Platform))
	}
	return nil
}

// lease holds what has come of a blob, whole or not, until its image does or a day has passed: a pull that is taken up
// again finds it, also in another process.
func (p *Puller) lease(ctx context.Context, d digest.Digest) (leases.Lease, error) {
	id := "penstock-pull-" + d.Encoded()
	lease, err := p.stores.Leases.Create(ctx, leases.WithID(id), leases.WithExpiration(leaseTime), leases.WithLabel(leaseLabel, "pull"))
	if errdefs.IsAlreadyExists(err) {
		return leases.Lease{ID: id}, nil
	}
	return lease, err
}

// Pull makes sure that an image is in the store, by the name that it is asked for. What is there of it is not asked
// for again. Its errors are those of Resolve.
func (p *Puller) Pull(ctx context.Context, name string, login remote.Login) (Image, Progress, error) {
	ctx = inNamespace(ctx)
	ref, err := ParseReference(name)
	if err != nil {
		return Image{}, Progress{}, err
	}
	leave, err := p.turn(ctx, "image "+ref.String())
	if err != nil {
		return Image{}, Progress{}, err
	}
	defer leave()
	local, err := p.images.Resolve(ctx, name)
	if ref.Host == "" || err == nil && (ref.Digest != "" || local.Record.Labels[pulledLabel] == "") {
		return local, Progress{}, err
	}
	progress := &pulling{far: Progress{Image: ref.String(), Began: time.Now()}}
	p.mu.Lock()
	p.pulls[progress] = struct{}{}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.pulls, progress)
		p.mu.Unlock()
	}()
	if err := p.pull(ctx, ref, login, progress); err != nil {
		return Image{}, progress.now(), p.fault(ref, err)
	}
	image, err := p.images.Resolve(ctx, name)
	end := progress.now()
	p.log.Info("image pulled", "image", ref.String(), "digest", image.Digest, "bytes", end.Done, "here", end.Here, "took", time.Since(end.Began))
	return image, end, err
}

func (p *Puller) pull(ctx context.Context, ref Reference, login remote.Login, progress *pulling) error {
	found, err := p.choose(ctx, ref, login)
	if err != nil {
		return err
	}
	blobs := found.image.references()
	var total int64
	for _, desc := range blobs {
		if desc.Size > maxBlob-total {
			return fmt.Errorf("want an image of at most %d bytes, got more", int64(maxBlob))
		}
		total += desc.Size
	}
	progress.change(func(far *Progress) { far.Total, far.Blobs = total, len(blobs) })
	if err := p.room(ctx, blobs); err != nil {
		return err
	}
	group, fetching := errgroup.WithContext(ctx)
	for _, desc := range blobs {
		group.Go(func() error {
			lease, err := p.lease(fetching, desc.Digest)
			if err != nil {
				return err
			}
			return p.fetch(leases.WithLease(fetching, lease.ID), ref, desc, login, progress)
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	// From here on it is a matter of moments, and of this machine only.
	ctx = context.WithoutCancel(ctx)
	labels := map[string]string{pulledLabel: stamp()}
	for _, child := range found.children {
		own := Reference{Host: ref.Host, Repository: ref.Repository, Digest: child.desc.Digest}
		if err := p.stores.keep(ctx, own, child.parsed, child.desc, child.raw, false, labels); err != nil {
			return ownFault(err)
		}
	}
	return ownFault(p.stores.keep(ctx, ref, found.parsed, found.target, found.raw, true, labels))
}

// room refuses an image that the disk cannot hold before any of it has come.
func (p *Puller) room(ctx context.Context, blobs []ocispec.Descriptor) error {
	if p.free == nil {
		return nil
	}
	var missing int64
	for _, desc := range blobs {
		if _, err := p.stores.Content.Info(ctx, desc.Digest); errdefs.IsNotFound(err) {
			missing += desc.Size
		}
	}
	free, err := p.free()
	if err != nil {
		return err
	}
	if missing > free {
		return fmt.Errorf("it has %d bytes that are not here, and this machine's disk has %d left", missing, free)
	}
	return nil
}

// ownFault is an error of the registry endpoint's functions for people who did not ask it.
func ownFault(err error) error {
	if answer, ok := errors.AsType[*protocolError](err); ok && answer.Status < http.StatusInternalServerError {
		return errors.New(answer.Message)
	}
	return err
}

// turn waits until nobody else works on what key names. The caller calls leave.
func (p *Puller) turn(ctx context.Context, key string) (leave func(), err error) {
	for {
		p.mu.Lock()
		busy, ok := p.turns[key]
		if !ok {
			mine := make(chan struct{})
			p.turns[key] = mine
			p.mu.Unlock()
			return func() {
				p.mu.Lock()
				delete(p.turns, key)
				p.mu.Unlock()
				close(mine)
			}, nil
		}
		p.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
