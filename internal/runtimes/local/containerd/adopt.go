package containerd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"

	"penstock/internal/resource"
	"penstock/internal/runtimes/local"
	"penstock/internal/shim"
)

// adopt takes over what earlier processes made, and removes what they did not finish making.
func (d *Driver) adopt(ctx context.Context) error {
	if err := d.loadSandboxes(ctx); err != nil {
		return err
	}
	records, err := d.client.ContainerService().List(ctx)
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	known := map[string]bool{}
	for _, r := range records {
		known[r.ID] = true
		if err := d.adoptContainer(ctx, r); err != nil {
			return fmt.Errorf("adopt container %s: %w", r.Labels[idLabel], err)
		}
	}
	entries, err := os.ReadDir(d.runDir(""))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if known[e.Name()] {
			continue
		}
		// Made before the record of a container that was never recorded; its sandbox is not known here, and what it
		// wrote goes with that.
		if err := unmountBelow(d.runDir(e.Name())); err != nil {
			return err
		}
		if err := os.RemoveAll(d.runDir(e.Name())); err != nil {
			return err
		}
	}
	for _, replica := range d.cfg.Network.Attached() {
		if _, err := d.sandbox(replica); errors.Is(err, local.ErrGone) {
			if err := d.cfg.Network.Detach(ctx, replica); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *Driver) adoptContainer(ctx context.Context, r containers.Container) error {
	c := &container{
		id: r.Labels[idLabel], key: r.ID, replica: r.Labels[replicaLabel], name: r.Labels[nameLabel], view: r.Labels[viewLabel],
		dir:     d.runDir(r.ID),
		cgroup:  filepath.Join(d.cfg.CgroupParent, r.Labels[replicaLabel], r.ID),
		created: r.CreatedAt, ended: make(chan struct{}),
	}
	if c.id == "" || c.replica == "" {
		d.log.Warn("a container without a name is in this platform's namespace; it is left alone", "container", r.ID)
		return nil
	}
	kept, err := readStatus(c.path("status.json"))
	if err != nil {
		return err
	}
	c.start = kept.Started
	d.mu.Lock()
	d.containers[c.id] = c
	d.mu.Unlock()
	task, err := d.task(ctx, c)
	switch {
	case kept.Exit != nil:
		c.setExit(*kept.Exit)
	case err != nil:
		return err
	case task == nil:
		// Its process ended while nobody watched, and containerd has forgotten how. Its shim has not, unless it was
		// killed too.
		exit := resource.Exit{Code: -1, At: time.Now(), Reason: "Unknown"}
		if e, err := shim.ReadExit(c.dir); err == nil {
			exit = d.exitOf(c, uint32(e.Code), e.At)
		}
		c.setExit(exit)
	case task.Status == tasktypes.Status_STOPPED:
		c.setExit(d.exitOf(c, task.ExitStatus, task.ExitedAt.AsTime()))
	default:
		c.pid = int(task.Pid)
		if task.Status == tasktypes.Status_RUNNING && c.start.IsZero() {
			c.start = r.CreatedAt // the process that started it did not come to write it down
		}
		if kills, _, err := d.cgroups.oom(c.cgroup); err == nil {
			c.oomed = kills // told by an earlier process, or by nobody
		}
	}
	s, err := d.sandbox(c.replica)
	if err != nil {
		d.log.Warn("a container has lost its sandbox; it is removed", "container", c.id)
		return d.undo(ctx, c)
	}
	p, ok := d.found[c.key]
	if !ok {
		return nil // it has none, or they could not be opened
	}
	delete(d.found, c.key)
	c.openOutput(p, d.cfg.Console, s.Revision, d.log)
	c.readOutput(&d.wg)
	return nil
}

// task asks containerd for a container's process; nil when it has none.
func (d *Driver) task(ctx context.Context, c *container) (*tasktypes.Process, error) {
	answer, err := d.client.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: c.key})
	if err = errgrpc.ToNative(err); errdefs.IsNotFound(err) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	return answer.Process, nil
}

func readStatus(path string) (status, error) {
	var s status
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// List implements local.Driver.
func (d *Driver) List(ctx context.Context) ([]local.SandboxStatus, error) {
	ctx = inNamespace(ctx)
	d.mu.Lock()
	byReplica := map[string]*local.SandboxStatus{}
	for name, s := range d.sandboxes {
		byReplica[name] = &local.SandboxStatus{Sandbox: s.Sandbox, Address: s.Address}
	}
	all := make([]*container, 0, len(d.containers))
	for _, c := range d.containers {
		all = append(all, c)
	}
	d.mu.Unlock()
	for _, c := range all {
		s, ok := byReplica[c.replica]
		if !ok {
			continue
		}
		st, err := d.statusOf(ctx, c)
		if err != nil {
			return nil, fmt.Errorf("list: container %s: %w", c.id, err)
		}
		s.Containers = append(s.Containers, st)
	}
	list := make([]local.SandboxStatus, 0, len(byReplica))
	for _, s := range byReplica {
		slices.SortFunc(s.Containers, func(a, b local.ContainerStatus) int { return strings.Compare(a.ID, b.ID) })
		list = append(list, *s)
	}
	slices.SortFunc(list, func(a, b local.SandboxStatus) int { return strings.Compare(a.Replica, b.Replica) })
	return list, nil
}

// lives says whether a process is there and is the container's. The kernel is asked for what it knows, because asking a
// shim wakes it up, and there are as many as containers.
func (d *Driver) lives(c *container, pid int) bool {
	groups, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cgroup"))
	return err == nil && strings.Contains(string(groups), c.cgroup) && !isZombie(pid)
}

// isZombie says whether a process has ended and waits for its parent. Its state is the first field behind its name
// (proc_pid_stat(5)).
func isZombie(pid int) bool {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return true
	}
	_, fields, _ := strings.Cut(string(b[bytes.LastIndexByte(b, ')')+1:]), " ")
	return strings.HasPrefix(fields, "Z") || strings.HasPrefix(fields, "X")
}

func (d *Driver) statusOf(ctx context.Context, c *container) (local.ContainerStatus, error) {
	st := c.status()
	if st.State == local.Exited || st.State == local.Running && d.lives(c, st.PID) {
		return st, nil
	}
	task, err := d.task(ctx, c)
	if err != nil {
		return st, err
	}
	switch {
	case task == nil && st.PID != 0:
		d.ended(c, resource.Exit{Code: -1, At: time.Now(), Reason: "Unknown"}) // its shim has gone
	case task != nil && task.Status == tasktypes.Status_STOPPED:
		d.ended(c, d.exitOf(c, task.ExitStatus, task.ExitedAt.AsTime()))
	}
	return c.status(), nil
}

func (c *container) status() local.ContainerStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := local.ContainerStatus{ID: c.id, Name: c.name, PID: c.pid, Created: c.created, Started: c.start, State: local.Created}
	switch {
	case c.exit != nil:
		exit := *c.exit
		st.State, st.Exit, st.PID = local.Exited, &exit, 0
	case !c.start.IsZero():
		st.State = local.Running
	}
	return st
}
