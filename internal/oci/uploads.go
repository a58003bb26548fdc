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
	// leaseTime is how long an upload may take, and how long its blob then waits for a manifest. It is also how
	// long a push that broke off can be taken up again.
	leaseTime = 24 * time.Hour
	// idleLimit ends an upload's request whose body has stopped coming. The upload itself can be resumed.
	idleLimit = 2 * time.Minute
	// maxBusy bounds the uploads that are written to at a time; one more is told to come again (429).
	maxBusy = 64
	// maxIdle bounds the uploads that wait for their next chunk with an open file. Beyond it the oldest is closed;
	// its next chunk reads back what is there, for containerd's writer keeps its hash in memory only.
	maxIdle = 16
	// takeOver is how long a request waits for the one before it on the same upload: that of a client that lost
	// its connection and comes again sooner than the server has noticed.
	takeOver = 5 * time.Second
)

// leaseLabel marks the leases of uploads; its value is the repository.
const leaseLabel = "penstock/upload"

// uploads are the blobs on their way in. What is in the store is the truth, so that an upload outlives the
// process; the map only keeps writers open between chunks, which spares reading back what came before.
type uploads struct {
	stores Stores

	mu   sync.Mutex
	open map[string]*upload // by content store reference
	busy int
}

// upload is one blob on its way in. It belongs to the request that has its turn.
type upload struct {
	repository, id string
	turn           chan struct{} // holds one element while no request works on the upload
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

// start begins an upload. The caller calls release.
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

// resume takes up an upload that was started before, by this process or one before it. The caller calls release.
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

// take waits for the turn on an upload, which is the one that is open under the same reference if there is one.
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
		u.turn = make(chan struct{}, 1)
		u.turn <- struct{}{}
		us.open[u.ref()] = u
	}
	u.waiting++
	us.mu.Unlock()

	limit := time.NewTimer(takeOver)
	defer limit.Stop()
	var err error
	select {
	case <-u.turn:
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

// leave counts a request out; us.mu is held. With nobody left to use it an upload without a writer is forgotten.
func (us *uploads) leave(u *upload) {
	u.waiting--
	if u.waiting == 0 && u.writer == nil {
		delete(us.open, u.ref())
	}
}

// release ends a request's turn. The writer stays open for the next chunk if there is one.
func (us *uploads) release(u *upload) {
	us.mu.Lock()
	us.busy--
	us.leave(u)
	u.used = time.Now()
	u.turn <- struct{}{}
	stale := us.oldestIdle()
	if stale != nil {
		<-stale.turn // does not block: nobody waits for it, and newcomers need us.mu
		stale.waiting++
	}
	us.mu.Unlock()
	if stale == nil {
		return
	}
	closeWriter(stale) // it syncs; whoever resumes it waits for its turn meanwhile
	us.mu.Lock()
	us.leave(stale)
	stale.turn <- struct{}{}
	us.mu.Unlock()
}

// oldestIdle is the upload to close when more than maxIdle are open, or nil; us.mu is held.
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

// close closes what waits for a next chunk. Uploads can be resumed by the next process.
func (us *uploads) close() {
	us.mu.Lock()
	var idle []*upload
	for ref, u := range us.open {
		if u.waiting == 0 {
			<-u.turn
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
	// The writer outlives the request.
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
		_ = u.writer.Close() // what was written is read back and verified later
		u.writer = nil
	}
}

// append writes body to the upload's end. What came before a failure is kept, unless the disk failed.
func (us *uploads) append(ctx context.Context, u *upload, body io.Reader) error {
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	for {
		n, rerr := body.Read(*buf)
		if n > 0 {
			if _, err := u.writer.Write((*buf)[:n]); err != nil {
				// The writer's count is wrong after a short write, and a full disk should not stay full.
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

// commit verifies the upload against its digest and makes it a blob. The upload's lease holds the blob until a
// manifest does. An upload with the wrong digest is dropped: no further byte could make it right.
func (us *uploads) commit(ctx context.Context, u *upload, want digest.Digest) error {
	// A client that has gone does not undo what it sent whole.
	ctx = leases.WithLease(context.WithoutCancel(ctx), u.leaseID())
	err := u.writer.Commit(ctx, u.offset, want)
	u.writer = nil // Commit closes it in any case
	if err == nil || errdefs.IsAlreadyExists(err) {
		return nil
	}
	us.drop(ctx, u)
	if errdefs.IsFailedPrecondition(err) {
		return refuse(http.StatusBadRequest, "DIGEST_INVALID", "the %d bytes that came are not %s: %v", u.offset, want, err)
	}
	return fmt.Errorf("commit upload: %w", err)
}

// drop removes an upload with all that came of it.
func (us *uploads) drop(ctx context.Context, u *upload) {
	closeWriter(u)
	ctx = context.WithoutCancel(ctx)
	// What is left over when these fail goes when the lease expires.
	_ = us.stores.Content.Abort(ctx, u.ref())
	_ = us.stores.Leases.Delete(ctx, leases.Lease{ID: u.leaseID()})
}

var copyBuffers = sync.Pool{New: func() any {
	buf := make([]byte, 256<<10)
	return &buf
}}
