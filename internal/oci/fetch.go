package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"penstock/internal/oci/remote"
)

const (
	// maxBlob is the maximum size of a blob. It prevents overflow when untrusted sizes are added up.
	maxBlob = 1 << 50
	// maxTries is the number of tries in a row without progress. firstPause doubles after each.
	maxTries   = 5
	firstPause = 200 * time.Millisecond
	// maxPause is the longest pause that a registry can request between two tries.
	maxPause = 20 * time.Second
)

// retry calls try until it succeeds, fails permanently, or has failed too often without progress.
func retry(ctx context.Context, try func() (progress bool, err error)) error {
	pause := firstPause
	for tries := 1; ; tries++ {
		progress, err := try()
		if progress {
			tries, pause = 1, firstPause
		}
		if err == nil || !remote.Again(err) || tries >= maxTries {
			return err
		}
		if ctx.Err() != nil {
			return err
		}
		wait := pause
		if busy, ok := errors.AsType[*remote.Error](err); ok && busy.Wait > 0 {
			wait = min(busy.Wait, maxPause)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return err
		}
		pause *= 2
	}
}

// lied is an error about wrong data from a registry, which a retry does not fix.
type lied struct{ words string }

func (l *lied) Error() string { return l.words }

// fetch fetches one blob into the store and continues where an earlier try stopped. ctx has a lease for it.
func (p *Puller) fetch(ctx context.Context, ref Reference, desc ocispec.Descriptor, login remote.Login, progress *pulling) error {
	leave, err := p.alone(ctx, "blob "+desc.Digest.String())
	if err != nil {
		return err
	}
	defer leave()
	if info, err := p.stores.Content.Info(ctx, desc.Digest); err == nil {
		if info.Size != desc.Size {
			return fmt.Errorf("blob %s: the manifest says %d bytes, it has %d", desc.Digest, desc.Size, info.Size)
		}
		if err := p.hold(ctx, desc.Digest); err != nil {
			return err
		}
		progress.change(func(far *Progress) { far.Here += desc.Size; far.Whole++ })
		return nil
	} else if !errdefs.IsNotFound(err) {
		return err
	}
	if err := p.fetches.Acquire(ctx, 1); err != nil {
		return context.Cause(ctx)
	}
	defer p.fetches.Release(1)

	w, err := content.OpenWriter(ctx, p.stores.Content, content.WithRef("penstock/pull/"+desc.Digest.String()), content.WithDescriptor(ocispec.Descriptor{Digest: desc.Digest, Size: desc.Size}))
	if errdefs.IsAlreadyExists(err) {
		progress.change(func(far *Progress) { far.Here += desc.Size; far.Whole++ })
		return nil
	}
	if err != nil {
		return fmt.Errorf("blob %s: %w", desc.Digest, err)
	}
	defer w.Close() // what has arrived is kept for the next try
	status, err := w.Status()
	if err != nil {
		return fmt.Errorf("blob %s: %w", desc.Digest, err)
	}
	offset := status.Offset
	if offset > desc.Size {
		if err := w.Truncate(0); err != nil {
			return fmt.Errorf("blob %s: %w", desc.Digest, err)
		}
		offset = 0
	}
	progress.change(func(far *Progress) { far.Here += offset })
	err = retry(ctx, func() (bool, error) {
		before := offset
		if offset == desc.Size {
			return false, nil
		}
		err := p.stream(ctx, ref, desc, login, w, &offset, progress)
		return offset > before, err
	})
	if err != nil {
		if l, ok := errors.AsType[*lied](err); ok {
			return errors.Join(fmt.Errorf("blob %s of %s: %w", desc.Digest, ref.Host, l), w.Truncate(0))
		}
		return fmt.Errorf("blob %s: %w", desc.Digest, err)
	}
	if err := w.Commit(context.WithoutCancel(ctx), desc.Size, desc.Digest); err != nil && !errdefs.IsAlreadyExists(err) {
		if errdefs.IsFailedPrecondition(err) {
			_ = p.stores.Content.Abort(context.WithoutCancel(ctx), "penstock/pull/"+desc.Digest.String()) // if this fails it is removed when its lease expires
			return fmt.Errorf("the %d bytes that %s sent for blob %s have another digest", desc.Size, ref.Host, desc.Digest)
		}
		return fmt.Errorf("blob %s: %w", desc.Digest, err)
	}
	progress.change(func(far *Progress) { far.Whole++ })
	return nil
}

// stream appends a registry's data from offset to w.
func (p *Puller) stream(ctx context.Context, ref Reference, desc ocispec.Descriptor, login remote.Login, w content.Writer, offset *int64, progress *pulling) error {
	blob, err := p.client.Blob(ctx, ref.Host, ref.Repository, desc.Digest, *offset, login)
	if err != nil {
		return err
	}
	defer blob.Close()
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	// A registry without support for ranges starts at 0, so skip the bytes that are in the store.
	skip := *offset - blob.Offset
	for {
		n, rerr := blob.Read(*buf)
		progress.change(func(far *Progress) { far.Wire += int64(n) })
		chunk := (*buf)[:n]
		if skip > 0 {
			passed := min(skip, int64(len(chunk)))
			chunk, skip = chunk[passed:], skip-passed
		}
		if int64(len(chunk)) > desc.Size-*offset {
			return &lied{fmt.Sprintf("the manifest says %d bytes, the registry sends more", desc.Size)}
		}
		if len(chunk) > 0 {
			if _, err := w.Write(chunk); err != nil {
				return &full{err}
			}
			*offset += int64(len(chunk))
			progress.change(func(far *Progress) { far.Done += int64(len(chunk)) })
		}
		switch {
		case rerr == io.EOF && *offset < desc.Size:
			return &lied{fmt.Sprintf("the manifest says %d bytes, the registry has %d", desc.Size, *offset)}
		case rerr == io.EOF:
			return nil
		case rerr != nil:
			return fmt.Errorf("%s: %w", ref.Host, rerr)
		}
	}
}

// full is an error of this machine's disk.
type full struct{ err error }

func (f *full) Error() string { return "write to this machine's disk: " + f.err.Error() }
func (f *full) Unwrap() error { return f.err }

// hold adds an existing blob to the lease of ctx.
func (p *Puller) hold(ctx context.Context, d digest.Digest) error {
	id, ok := leases.FromContext(ctx)
	if !ok {
		return nil
	}
	err := p.stores.Leases.AddResource(ctx, leases.Lease{ID: id}, leases.Resource{ID: d.String(), Type: "content"})
	return ignoreNotFound(err) // the lease is gone because an image has the blob now
}
