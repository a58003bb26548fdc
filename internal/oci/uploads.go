package oci

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

const (
	// leaseTime is how long an upload can take, and how long its blob then waits for a manifest. An interrupted push
	// can be resumed for the same time.
	leaseTime = 24 * time.Hour
	// idleLimit ends an upload request whose body has stopped arriving. The upload itself can be resumed.
	idleLimit = 2 * time.Minute
	// maxBusy is the number of uploads that are written to at a time. Further requests get a 429.
	maxBusy = 64
	// maxIdle is the number of uploads that wait for their next chunk with an open file. If there are more, the oldest
	// is closed. Its next chunk must read the existing bytes again, because containerd's writer keeps its hash only in
	// memory.
	maxIdle = 16
	// takeOver is how long a request waits for an earlier one on the same upload. This happens if a client loses its
	// connection and comes back before the server has noticed.
	takeOver = 5 * time.Second
)

// leaseLabel marks the leases of uploads. Its value is the repository.
const leaseLabel = "penstock/upload"

// uploads are the blobs that are being uploaded. The store has the authoritative state, so an upload survives the
// process. The map only keeps writers open between chunks, which avoids reading the existing bytes again.
type uploads struct {
	stores Stores

	mu   sync.Mutex
	open map[string]*upload // by content store reference
	busy int
}

// upload is a blob that is being uploaded. One request at a time works on it.
type upload struct {
	repository, id string
	free           chan struct{} // holds one element while no request works on the upload
	writer         content.Writer
	offset         int64

	// guarded by uploads.mu
	waiting int
	used    time.Time
}

func (u *upload) ref() string     { return "penstock/upload/" + u.repository + "/" + u.id }
func (u *upload) leaseID() string { return "penstock-upload-" + u.id }

func newUploads(stores Stores) *uploads {
	return &uploads{stores: stores, open: make(map[string]*upload)}
}

// start begins an upload. The caller must call release.
func (us *uploads) start(ctx context.Context, repository string) (*upload, error) {
	u, err := us.take(ctx, &upload{repository: repository, id: rand.Text()})
	if err != nil {
		return nil, err
	}
	_, err = us.stores.Leases.Create(ctx, leases.WithID(u.leaseID()), leases.WithExpiration(leaseTime), leases.WithLabel(leaseLabel, repository))
	if err == nil {
		if err = us.openWriter(ctx, u); err != nil {
			us.drop(ctx, u)
		}
	}
	if err != nil {
		us.release(u)
		return nil, fmt.Errorf("start upload: %w", err)
	}
	return u, nil
}

// resume continues an upload that was started earlier, by this process or a previous one. The caller must call release.
func (us *uploads) resume(ctx context.Context, repository, id string) (*upload, error) {
	unknown := refuse(http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "upload %q of %q: not known; it ended or is older than %v", clip(id), repository, leaseTime)
	if len(id) > 64 || strings.Trim(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" {
		return nil, unknown
	}
	u, err := us.take(ctx, &upload{repository: repository, id: id})
	if err != nil {
		return nil, err
	}
	if _, err = us.stores.Content.Status(ctx, u.ref()); err == nil && u.writer == nil {
		err = us.openWriter(ctx, u)
	}
	if err != nil {
		closeWriter(u)
		us.release(u)
		if errdefs.IsNotFound(err) {
			return nil, unknown
		}
		return nil, fmt.Errorf("resume upload %s: %w", id, err)
	}
	return u, nil
}

// take waits until no other request works on the upload. If an upload is open under the same reference, it returns that
// one.
func (us *uploads) take(ctx context.Context, u *upload) (*upload, error) {
	us.mu.Lock()
	if us.busy >= maxBusy {
		us.mu.Unlock()
		return nil, refuse(http.StatusTooManyRequests, "TOOMANYREQUESTS", "%d uploads are under way; try again", maxBusy)
	}
	us.busy++
	if known, ok := us.open[u.ref()]; ok {
		u = known
	} else {
		u.free = make(chan struct{}, 1)
		u.free <- struct{}{}
		us.open[u.ref()] = u
	}
	u.waiting++
	us.mu.Unlock()

	limit := time.NewTimer(takeOver)
	defer limit.Stop()
	var err error
	select {
	case <-u.free:
		return u, nil
	case <-limit.C:
		err = refuse(http.StatusConflict, "BLOB_UPLOAD_INVALID", "upload %s: another request is writing to it", u.id)
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	us.mu.Lock()
	us.busy--
	us.leave(u)
	us.mu.Unlock()
	return nil, err
}

// leave counts a request out. If no request uses the upload any more and it has no writer, it is removed from the map.
// us.mu is held.
func (us *uploads) leave(u *upload) {
	u.waiting--
	if u.waiting == 0 && u.writer == nil {
		delete(us.open, u.ref())
	}
}

// release lets the next request work on the upload. The writer stays open for another chunk.
func (us *uploads) release(u *upload) {
	us.mu.Lock()
	us.busy--
	us.leave(u)
	u.used = time.Now()
	u.free <- struct{}{}
	stale := us.oldestIdle()
	if stale != nil {
		<-stale.free // does not block: nobody waits for it, and new requests need us.mu
		stale.waiting++
	}
	us.mu.Unlock()
	if stale == nil {
		return
	}
	closeWriter(stale) // it syncs; whoever resumes this upload waits meanwhile
	us.mu.Lock()
	us.leave(stale)
	stale.free <- struct{}{}
	us.mu.Unlock()
}

// oldestIdle returns the upload to close if more than maxIdle are open, or nil. us.mu is held.
func (us *uploads) oldestIdle() *upload {
	var oldest *upload
	idle := 0
	for _, u := range us.open {
		if u.waiting > 0 {
			continue
		}
		idle++
		if oldest == nil || u.used.Before(oldest.used) {
			oldest = u
		}
	}
	if idle <= maxIdle {
		return nil
	}
	return oldest
}

// close closes the uploads that wait for a chunk. The next process can resume them.
func (us *uploads) close() {
	us.mu.Lock()
	var idle []*upload
	for ref, u := range us.open {
		if u.waiting == 0 {
			<-u.free
			delete(us.open, ref)
			idle = append(idle, u)
		}
	}
	us.mu.Unlock()
	for _, u := range idle {
		closeWriter(u)
	}
}

func (us *uploads) openWriter(ctx context.Context, u *upload) error {
	// The writer must outlive the request.
	ctx = leases.WithLease(context.WithoutCancel(ctx), u.leaseID())
	w, err := us.stores.Content.Writer(ctx, content.WithRef(u.ref()))
	if err != nil {
		return err
	}
	status, err := w.Status()
	if err != nil {
		return errors.Join(err, w.Close())
	}
	u.writer, u.offset = w, status.Offset
	return nil
}

func closeWriter(u *upload) {
	if u.writer != nil {
		_ = u.writer.Close() // what was written is read again and verified later
		u.writer = nil
	}
}

// append appends body to the upload. If it fails, what has arrived is kept, unless the disk failed.
func (us *uploads) append(ctx context.Context, u *upload, body io.Reader) error {
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	for {
		n, rerr := body.Read(*buf)
		if n > 0 {
			if _, err := u.writer.Write((*buf)[:n]); err != nil {
				// After a short write the writer's count is wrong, and dropping the upload frees space on a full disk.
				us.drop(ctx, u)
				return fmt.Errorf("write upload: %w", err)
			}
			u.offset += int64(n)
		}
		switch {
		case rerr == io.EOF:
			return nil
		case rerr != nil:
			return cutShort(rerr)
		}
	}
}

// commit verifies the upload against its digest and makes it a blob. The upload's lease holds the blob until a manifest
// does. An upload with the wrong digest is dropped, because further bytes cannot correct it.
func (us *uploads) commit(ctx context.Context, u *upload, want digest.Digest) error {
	// The commit completes even if the client has left, because it sent everything.
	ctx = leases.WithLease(context.WithoutCancel(ctx), u.leaseID())
	err := u.writer.Commit(ctx, u.offset, want)
	u.writer = nil // Commit always closes it
	if err == nil || errdefs.IsAlreadyExists(err) {
		return nil
	}
	us.drop(ctx, u)
	if errdefs.IsFailedPrecondition(err) {
		return refuse(http.StatusBadRequest, "DIGEST_INVALID", "the %d bytes that came are not %s: %v", u.offset, want, err)
	}
	return fmt.Errorf("commit upload: %w", err)
}

// drop removes an upload with everything it has stored.
func (us *uploads) drop(ctx context.Context, u *upload) {
	closeWriter(u)
	ctx = context.WithoutCancel(ctx)
	// If these calls fail, the rest is removed when the lease expires.
	_ = us.stores.Content.Abort(ctx, u.ref())
	_ = us.stores.Leases.Delete(ctx, leases.Lease{ID: u.leaseID()})
}

var copyBuffers = sync.Pool{New: func() any {
	buf := make([]byte, 256<<10)
	return &buf
}}
