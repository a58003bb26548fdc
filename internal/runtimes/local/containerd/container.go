package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/runtime"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"

	"penstock/internal/atomicfile"
	"penstock/internal/oci"
	"penstock/internal/resource"
	"penstock/internal/runtimes/local"
)

// Labels of a container's record in containerd.
const (
	idLabel      = "penstock/id"
	replicaLabel = "penstock/replica"
	nameLabel    = "penstock/name"
)

// container is a container that this driver has created or adopted.
type container struct {
	id, key, replica, name string
	view                   string
	dir                    string // run folder
	cgroup                 string
	created                time.Time

	// ended is closed when the container's process has ended and exit is set.
	ended chan struct{}

	mu     sync.Mutex
	pid    int
	start  time.Time
	paused bool
	exit   *resource.Exit
	oomed  uint64 // number of OOM kills that watchers were told about
	output []*reader
}

func (c *container) path(name string) string { return filepath.Join(c.dir, name) }

// status is stored next to a container's pipes. It holds what containerd forgets when this process ends.
type status struct {
	Started time.Time
	Exit    *resource.Exit `json:",omitempty"`
}

// keepStatus writes the status. The caller holds c.mu, so a start cannot overwrite an exit.
func (c *container) keepStatus() error {
	b, err := json.Marshal(status{Started: c.start, Exit: c.exit})
	if err != nil {
		return err
	}
	return atomicfile.WriteUnsynced(c.path("status.json"), b, 0o600)
}

func (d *Driver) container(id string) (*container, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, ok := d.containers[id]
	if !ok {
		return nil, fmt.Errorf("container %s: %w", id, local.ErrGone)
	}
	return c, nil
}

// Create implements local.Driver.
func (d *Driver) Create(ctx context.Context, want local.Container) error {
	ctx = inNamespace(ctx)
	if err := d.create(ctx, want); err != nil {
		return fmt.Errorf("create container: %w", plain(err))
	}
	return nil
}

// plain reduces an error of runc to the part that the user can act on. The layers above it only add that a container
// could not be created.
func plain(err error) error {
	const inside = "error during container init: "
	if _, why, found := strings.Cut(err.Error(), inside); found {
		return errors.New(why)
	}
	return err
}

func (d *Driver) create(ctx context.Context, want local.Container) (err error) {
	s, err := d.sandbox(want.Replica)
	if err != nil {
		return err
	}
	image, err := d.resolve(ctx, want.Image)
	if err != nil {
		return err
	}
	v, err := d.unpacked(ctx, image)
	if err != nil {
		return fmt.Errorf("unpack image %s: %w", want.Image, err)
	}
	key := keyOf(want.ID)
	c := &container{
		id: want.ID, key: key, replica: want.Replica, name: want.Name, view: v.key,
		dir:     d.runDir(key),
		cgroup:  filepath.Join(d.cfg.CgroupParent, want.Replica, key),
		created: time.Now(), ended: make(chan struct{}),
	}
	d.mu.Lock()
	if _, ok := d.containers[want.ID]; ok {
		d.mu.Unlock()
		return errors.New("it exists already")
	}
	d.containers[want.ID] = c
	d.mu.Unlock()
	defer func() {
		if err != nil {
			err = errors.Join(err, d.undo(context.WithoutCancel(ctx), c))
		}
	}()
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	// The container's root, which has no rights on the host, must be able to walk through it. Other users of this
	// machine must not.
	if err := errors.Join(os.Chown(c.dir, 0, int(s.FirstID)), os.Chmod(c.dir, 0o710)); err != nil {
		return err
	}
	if err := d.mountRoot(ctx, c, s, v); err != nil {
		return err
	}
	if err := d.bindVolumes(c, s, want.Mounts); err != nil {
		return err
	}
	if err := d.bindHostFiles(c, s, want.Hostname); err != nil {
		return err
	}
	record, spec, err := d.record(ctx, c, s, want, image)
	if err != nil {
		return err
	}
	if _, err := d.client.ContainerService().Create(ctx, record); err != nil {
		return err
	}
	p, err := openPipes(c.dir, d.log)
	if err != nil {
		return err
	}
	c.openOutput(p, d.cfg.Console, s.Revision, d.log)
	// The task service is not used here: it would take the specification from the record, which is on disk.
	task, err := d.engine.tasks.Create(ctx, key, runtime.CreateOpts{
		Spec: spec, IO: runtime.IO{Stdout: c.path("stdout"), Stderr: c.path("stderr")},
		Runtime: record.Runtime.Name, RuntimeOptions: record.Runtime.Options,
	})
	if err != nil {
		return errgrpc.ToNative(err)
	}
	// containerd makes the file readable for all users, and protects only its folder.
	if err := os.Chmod(filepath.Join(d.bundle(c), "config.json"), 0o600); err != nil {
		return err
	}
	pid, err := task.PID(ctx)
	if err != nil {
		return errgrpc.ToNative(err)
	}
	c.mu.Lock()
	c.pid = int(pid)
	c.mu.Unlock()
	// Only after the shim has opened its ends: a pipe without a writer looks as if it had ended.
	c.readOutput(&d.wg)
	return nil
}

// record returns what containerd stores about a container, and the container's specification. Variables can contain
// secrets, and a database does not erase what it deletes, so the stored record has no variables. They are only in the
// task's bundle, which is in memory.
func (d *Driver) record(ctx context.Context, c *container, s *sandbox, want local.Container, image imageOf) (containers.Container, typeurl.Any, error) {
	options, err := typeurl.MarshalAnyToProto(&runcoptions.Options{
		BinaryName: d.runc,
		Root:       filepath.Join(d.cfg.State, "runc"),
		// A program may open /dev/stdout by name. For that, its user must own the pipe.
		IoUid: s.FirstID, IoGid: s.FirstID,
	})
	if err != nil {
		return containers.Container{}, nil, err
	}
	record := containers.Container{
		ID: c.key,
		Labels: map[string]string{
			idLabel: c.id, replicaLabel: c.replica, nameLabel: c.name, viewLabel: c.view,
		},
		Runtime: containers.RuntimeInfo{Name: d.shim, Options: options},
	}
	spec, err := d.spec(ctx, &record, c, s, want, image)
	if err != nil {
		return containers.Container{}, nil, err
	}
	whole, err := typeurl.MarshalAnyToProto(spec)
	if err != nil {
		return containers.Container{}, nil, err
	}
	spec.Process.Env = nil
	if record.Spec, err = typeurl.MarshalAnyToProto(spec); err != nil {
		return containers.Container{}, nil, err
	}
	return record, whole, nil
}

// bundle returns the folder with the specification of a container's task, which exists as long as the task.
func (d *Driver) bundle(c *container) string {
	return filepath.Join(d.memory("c"), plugins.RuntimePluginV2.String()+".task", oci.Namespace, c.key)
}

// Start implements local.Driver.
func (d *Driver) Start(ctx context.Context, id string) (int, error) {
	c, err := d.container(id)
	if err != nil {
		return 0, fmt.Errorf("start: %w", err)
	}
	answer, err := d.client.TaskService().Start(inNamespace(ctx), &tasks.StartRequest{ContainerID: c.key})
	if err != nil {
		return 0, fmt.Errorf("start container %s: %w", id, errgrpc.ToNative(err))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pid, c.start = int(answer.Pid), time.Now()
	if err := c.keepStatus(); err != nil {
		return 0, fmt.Errorf("start container %s: %w", id, err)
	}
	return c.pid, nil
}

// Pause implements local.Driver.
func (d *Driver) Pause(ctx context.Context, id string) error {
	c, err := d.container(id)
	if err != nil {
		return fmt.Errorf("pause: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.paused {
		return nil
	}
	if _, err := d.client.TaskService().Pause(inNamespace(ctx), &tasks.PauseTaskRequest{ContainerID: c.key}); err != nil {
		return fmt.Errorf("pause container %s: %w", id, errgrpc.ToNative(err))
	}
	c.paused = true
	return nil
}

// Resume implements local.Driver.
func (d *Driver) Resume(ctx context.Context, id string) error {
	c, err := d.container(id)
	if err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	if err := d.resume(inNamespace(ctx), c); err != nil {
		return fmt.Errorf("resume container %s: %w", id, err)
	}
	return nil
}

func (d *Driver) resume(ctx context.Context, c *container) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.paused || c.exit != nil {
		return nil
	}
	if _, err := d.client.TaskService().Resume(ctx, &tasks.ResumeTaskRequest{ContainerID: c.key}); err != nil {
		return errgrpc.ToNative(err)
	}
	c.paused = false
	return nil
}

// Kill implements local.Driver.
func (d *Driver) Kill(ctx context.Context, id string, signal syscall.Signal) error {
	c, err := d.container(id)
	if err != nil {
		return fmt.Errorf("kill: %w", err)
	}
	if err := d.kill(inNamespace(ctx), c, signal); err != nil {
		return fmt.Errorf("kill container %s: %w", id, err)
	}
	return nil
}

func (d *Driver) kill(ctx context.Context, c *container, signal syscall.Signal) error {
	_, err := d.client.TaskService().Kill(ctx, &tasks.KillRequest{ContainerID: c.key, Signal: uint32(signal), All: signal == syscall.SIGKILL})
	if err = errgrpc.ToNative(err); errdefs.IsNotFound(err) || errdefs.IsFailedPrecondition(err) {
		return nil // it has already ended
	}
	return err
}

// Delete implements local.Driver.
func (d *Driver) Delete(ctx context.Context, id string) error {
	d.mu.Lock()
	c, ok := d.containers[id]
	d.mu.Unlock()
	if !ok {
		return nil
	}
	ctx = inNamespace(ctx)
	// A frozen process cannot end.
	if err := d.resume(ctx, c); err != nil {
		d.log.Warn("a frozen container cannot be thawed before it is killed", "container", id, "err", err)
	}
	if err := d.kill(ctx, c, syscall.SIGKILL); err != nil {
		return fmt.Errorf("delete container %s: %w", id, err)
	}
	if err := d.undo(ctx, c); err != nil {
		return fmt.Errorf("delete container %s: %w", id, err)
	}
	return nil
}

// undo removes everything of a container, its record last.
func (d *Driver) undo(ctx context.Context, c *container) error {
	// Deleting a task by force takes 100 ms in runc. So the task is killed, and its exit awaited.
	_, err := d.client.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: c.key})
	switch err = errgrpc.ToNative(err); {
	case errdefs.IsNotFound(err):
	case err != nil:
		return err
	default:
		if err := d.kill(ctx, c, syscall.SIGKILL); err != nil {
			return err
		}
		select {
		case <-c.ended:
		case <-ctx.Done():
			return fmt.Errorf("wait for its end: %w", context.Cause(ctx))
		}
		if _, err := d.client.TaskService().Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: c.key}); err != nil {
			if err = errgrpc.ToNative(err); !errdefs.IsNotFound(err) {
				return err
			}
		}
	}
	if err := c.drainOutput(ctx); err != nil {
		return err
	}
	if err := d.unmountRoot(c); err != nil {
		return err
	}
	// Before its folder is removed; otherwise the files in the volumes would be removed with it.
	if err := d.unbindVolumes(c); err != nil {
		return err
	}
	if err := os.RemoveAll(c.dir); err != nil {
		return err
	}
	if err := d.client.ContainerService().Delete(ctx, c.key); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	d.mu.Lock()
	delete(d.containers, c.id)
	d.mu.Unlock()
	return nil
}
