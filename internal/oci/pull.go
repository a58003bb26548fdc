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
	// maxFetches is the number of blobs that are fetched at a time, over all images. It is high enough to use the full
	// bandwidth and low enough that no blob waits long. containerd and Docker fetch three per image.
	maxFetches = 4
	// asideManifests is the number of images in an index that are fetched to find their platform because the index does
	// not say it.
	asideManifests = 16
	// knownFor is how long an answer about a tag is cached, so that the check of a write and the following
	// reconciliation use the same image and ask only once.
	knownFor = 30 * time.Second
	// askLimit limits the time of Resolve's requests to a registry, with all retries.
	askLimit = 15 * time.Second
)

// Puller pulls images from other registries into the store.
//
// A name without a registry host belongs to this server and is never requested elsewhere. A name with a host is looked
// up in the store first: an image that was pushed here under that name replaces the registry's image. An image that was
// pulled before is used without asking if it is requested by digest. A tag is asked for again.
type Puller struct {
	stores  Stores
	images  *Images
	client  *remote.Client
	free    func() (int64, error)
	log     *slog.Logger
	fetches *semaphore.Weighted

	mu    sync.Mutex
	known map[string]answer        // by name and login
	busy  map[string]chan struct{} // by image or blob that is being pulled; closed when the pull ends
	pulls map[*pulling]struct{}
}

// answer is what a tag means according to a registry.
type answer struct {
	digest digest.Digest
	at     time.Time
}

// NewPuller returns a puller into stores. free returns the free bytes on the store's disk. If it is nil, free space is
// not checked.
func NewPuller(stores Stores, client *remote.Client, free func() (int64, error), log *slog.Logger) *Puller {
	return &Puller{
		stores: stores, images: NewImages(stores), client: client, free: free, log: log, fetches: semaphore.NewWeighted(maxFetches),
		known: map[string]answer{}, busy: map[string]chan struct{}{}, pulls: map[*pulling]struct{}{},
	}
}

// Resolve returns the digest that a name currently means, without pulling the image. It fails with ErrNotFound,
// ErrPlatform or remote.ErrUnauthorized, or with another error if the registry cannot be reached in time.
func (p *Puller) Resolve(ctx context.Context, name string, login remote.Login) (digest.Digest, error) {
	ctx = inNamespace(ctx)
	ref, err := p.stores.reference(name)
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

// fault converts an error of a registry to the errors of this package.
func (p *Puller) fault(ref Reference, err error) error {
	switch {
	case errors.Is(err, remote.ErrNotFound):
		return notFoundError(fmt.Sprintf("image %q: neither in this server's store nor in its registry: %v", ref, err))
	case errors.Is(err, ErrPlatform):
		return platformError(fmt.Sprintf("image %q: %v", ref, err))
	}
	return fmt.Errorf("image %q: %w", ref, err)
}

// chosen is an image in a registry, and the part of it that this machine runs.
type chosen struct {
	target ocispec.Descriptor // what the tag means: an index or an image
	raw    []byte
	parsed manifest
	// children are the manifests of an index that are pulled: those of the image for this machine.
	children []part
	image    manifest // for this machine
}

// part is a manifest in an index.
type part struct {
	desc   ocispec.Descriptor
	raw    []byte
	parsed manifest
}

// choose asks a registry what a name means, and selects what this machine runs.
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

// ask fetches one manifest from a registry.
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

// suits fetches an image's config and checks whether this machine can run the image.
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

// lease holds a complete or partial blob until its image does, or for a day. A pull that is tried again finds it, also
// in another process.
func (p *Puller) lease(ctx context.Context, d digest.Digest) (leases.Lease, error) {
	id := "penstock-pull-" + d.Encoded()
	lease, err := p.stores.Leases.Create(ctx, leases.WithID(id), leases.WithExpiration(leaseTime), leases.WithLabel(leaseLabel, "pull"))
	if errdefs.IsAlreadyExists(err) {
		return leases.Lease{ID: id}, nil
	}
	return lease, err
}

// Pull makes sure that the store has an image under the requested name. It does not fetch what the store has. It
// returns the same errors as Resolve.
func (p *Puller) Pull(ctx context.Context, name string, login remote.Login) (Image, Progress, error) {
	ctx = inNamespace(ctx)
	ref, err := p.stores.reference(name)
	if err != nil {
		return Image{}, Progress{}, err
	}
	leave, err := p.alone(ctx, "image "+ref.String())
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
	// The rest is quick and needs only this machine.
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

// room fails if the disk has no room for an image. It is called before anything is fetched.
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

// ownFault removes the registry protocol's form from an error, for callers that did not use the protocol.
func ownFault(err error) error {
	if answer, ok := errors.AsType[*protocolError](err); ok && answer.Status < http.StatusInternalServerError {
		return errors.New(answer.Message)
	}
	return err
}

// alone waits until nobody else pulls what key names. The caller must call leave.
func (p *Puller) alone(ctx context.Context, key string) (leave func(), err error) {
	for {
		p.mu.Lock()
		other, ok := p.busy[key]
		if !ok {
			mine := make(chan struct{})
			p.busy[key] = mine
			p.mu.Unlock()
			return func() {
				p.mu.Lock()
				delete(p.busy, key)
				p.mu.Unlock()
				close(mine)
			}, nil
		}
		p.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
