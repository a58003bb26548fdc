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

// adopt takes over what earlier processes created, and removes what they did not finish.
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
	if err := d.endStrayShims(known); err != nil {
		return err
	}
	entries, err := os.ReadDir(d.runDir(""))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if known[e.Name()] {
			continue
		}
		// The container was never recorded: these files are created before its record. Its sandbox is not known here;
		// what the container wrote is removed with the sandbox.
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

// endStrayShims ends the shims of containers that are not known. A control that is killed between the start of a shim and
// containerd's note of it leaves one that nobody else would look for.
func (d *Driver) endStrayShims(known map[string]bool) error {
	if d.cfg.ShimCgroup == "" {
		return nil
	}
	b, err := os.ReadFile(d.cgroups.file("cpu", d.cfg.ShimCgroup, "cgroup.procs"))
	if err != nil {
		return fmt.Errorf("list shims: %w", err)
	}
	for word := range strings.FieldsSeq(string(b)) {
		pid, err := strconv.Atoi(word)
		if err != nil || pid <= 1 {
			continue
		}
		process, err := os.FindProcess(pid) // before its command line is read: a process that takes its number later is another
		if err != nil {
			return fmt.Errorf("shim %d: %w", pid, err)
		}
		if key := shimOf(pid); key != "" && !known[key] {
			d.log.Warn("a shim belongs to no known container; it is ended", "pid", pid, "container", key)
			if err := process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return fmt.Errorf("end shim %d: %w", pid, err)
			}
		}
		if err := process.Release(); err != nil {
			return err
		}
	}
	return nil
}

// shimOf returns the key of a shim's container, or "" if the process has ended or is something else.
func shimOf(pid int) string {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err != nil {
		return ""
	}
	args := strings.Split(string(b), "\x00")
	if i := slices.Index(args, "-id"); i >= 0 && i+1 < len(args) {
		return args[i+1]
	}
	return ""
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
		// Its process ended while nobody watched, and containerd has forgotten how. The shim still knows, unless it was
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
		c.paused = task.Status == tasktypes.Status_PAUSED || task.Status == tasktypes.Status_PAUSING
		if task.Status != tasktypes.Status_CREATED && c.start.IsZero() {
			c.start = r.CreatedAt // the process that started it ended before it could record the time
		}
		if kills, _, err := d.cgroups.oom(c.cgroup); err == nil {
			c.oomed = kills // reported by an earlier process, or not at all
		}
	}
	s, err := d.sandbox(c.replica)
	if err != nil {
		d.log.Warn("a container has lost its sandbox; it is removed", "container", c.id)
		return d.undo(ctx, c)
	}
	p, ok := d.found[c.key]
	if !ok {
		return nil // it has no pipes, or they could not be opened
	}
	delete(d.found, c.key)
	c.openOutput(p, d.cfg.Console, s.Revision, d.log)
	c.readOutput(&d.wg)
	return nil
}

// task returns containerd's view of a container's process, or nil if there is none.
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

// lives reports whether a process exists and belongs to the container. It asks the kernel, because a request would wake
// the shim, and there is one shim per container.
func (d *Driver) lives(c *container, pid int) bool {
	groups, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cgroup"))
	return err == nil && strings.Contains(string(groups), c.cgroup) && !isZombie(pid)
}

// isZombie reports whether a process has ended and waits for its parent. The state is the first field after the
// process's name (proc_pid_stat(5)).
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
	st := local.ContainerStatus{ID: c.id, Name: c.name, PID: c.pid, Created: c.created, Started: c.start, State: local.Created, Paused: c.paused && c.exit == nil}
	switch {
	case c.exit != nil:
		exit := *c.exit
		st.State, st.Exit, st.PID = local.Exited, &exit, 0
	case !c.start.IsZero():
		st.State = local.Running
	}
	return st
}
