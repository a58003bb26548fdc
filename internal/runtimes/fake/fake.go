// Package fake is a driver without containers. Each "container" is an HTTP server in this process, on its own loopback
// address. It can be told to fail, crash or be slow, so that everything above the driver can be tested anywhere.
//
// There are five images:
//
//	fake/echo  answers every request with the body that was sent to it, or with the name of its replica
//	fake/deaf  the same, but ignores SIGTERM
//	fake/exit  ends at once with code 3
//	fake/done  ends at once with code 0
//	fake/write the same, after it has written its second argument to the file named by the first
//
// A container listens on the port in its variable PORT, or else in CONTAINER_APP_PORT, or else on 8080, which echo and
// deaf EXPOSE. Further variables make it misbehave:
//
//	FAKE_START_DELAY=2s      its port stays closed for that long
//	FAKE_LISTEN_ALSO=9090    it also listens on that port, from its start
//	FAKE_READY_AFTER=2s      it then answers 503 for that long
//	FAKE_EXIT_AFTER=2s       it ends by itself, with FAKE_EXIT_CODE (1)
//	FAKE_CRASH_ON=/path      a request for that path ends it without an answer, with FAKE_EXIT_CODE (1)
//	FAKE_HANG_ON=/path       a request for that path, and every later one, gets no answer
//	FAKE_OOM_ON=/path        a request for that path kills it, like the kernel at its memory limit
//	FAKE_CHILD_OOM_ON=/path  a child is killed in that way, and it keeps running
//	FAKE_IGNORE_SIGTERM=1
//	FAKE_CREATE_ERROR=text   it cannot be created
//	FAKE_START_ERROR=text    it cannot be started
//
// GET /file?path=/x returns what was written to that file. Volumes are shared by a replica's containers. Files outside
// of volumes belong to one container.
//
// Each request can also set ?delay=200ms, ?delay=body (the request's body is the duration), ?status=503 and ?events=3
// (an event stream, with one event after each delay).
package fake

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"penstock/internal/resource"
	"penstock/internal/runtimes"
	"penstock/internal/runtimes/local"
)

// References of the images.
const (
	Echo = "fake/echo"
	Deaf = "fake/deaf"
	Exit = "fake/exit"
	Done = "fake/done"

	Write = "fake/write"
)

// Options are optional settings of a driver.
type Options struct {
	Console local.Console
}

// Driver implements local.Driver. As with real containers, one engine may end and another one may adopt what runs: what
// is created lives as long as the driver, until Close.
type Driver struct {
	console   local.Console
	processes sync.WaitGroup

	mu         sync.Mutex
	sandboxes  map[string]*sandbox
	containers map[string]*container
	watchers   local.Watchers
	lastPID    int

	storages disk
}

type sandbox struct {
	local.Sandbox
	addr netip.Addr
	disk disk
}

type container struct {
	local.Container
	behaviour behaviour
	created   time.Time
	started   time.Time
	exit      *resource.Exit
	process   *process // nil before Start
}

// firstPID is above the largest PID on Linux (2^22), so a signal that is sent to such a process by mistake hits
// nothing.
const firstPID = 1<<22 + 1

// New returns an empty driver.
func New(o Options) *Driver {
	return &Driver{
		console:    o.Console,
		sandboxes:  map[string]*sandbox{},
		containers: map[string]*container{},
		lastPID:    firstPID,
		storages:   disk{mu: &sync.Mutex{}, files: files{}},
	}
}

// Close ends all processes. The driver cannot be used after that.
func (d *Driver) Close() {
	d.mu.Lock()
	for _, c := range d.containers {
		if c.process != nil {
			c.process.finish(exited{code: 128 + int(syscall.SIGKILL)})
		}
	}
	d.mu.Unlock()
	d.processes.Wait()
}

// Image implements local.Driver.
func (d *Driver) Image(_ context.Context, ref string) (local.Image, error) {
	name, digest, pinned := strings.Cut(ref, "@")
	name, _, _ = strings.Cut(name, ":")
	if all := []string{Echo, Deaf, Exit, Done, Write}; !slices.Contains(all, name) {
		return local.Image{}, fmt.Errorf("%q is none of %s: %w", ref, strings.Join(all, ", "), local.ErrImageNotFound)
	}
	image := local.Image{Ref: ref, Digest: fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(name)))}
	if name == Echo || name == Deaf {
		image.Ports = []int{defaultPort}
	}
	if pinned && digest != image.Digest {
		return local.Image{}, fmt.Errorf("%q: %s has the digest %s: %w", ref, name, image.Digest, local.ErrImageNotFound)
	}
	return image, nil
}

// CreateSandbox implements local.Driver.
func (d *Driver) CreateSandbox(_ context.Context, s local.Sandbox) (netip.Addr, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if have := d.sandboxes[s.Replica]; have != nil {
		return have.addr, nil
	}
	addr := d.freeAddr()
	d.sandboxes[s.Replica] = &sandbox{Sandbox: s, addr: addr, disk: disk{&sync.Mutex{}, files{}, &d.storages}}
	return addr, nil
}

// freeAddr picks a loopback address. On Linux all of 127.0.0.0/8 is this machine. The address is random out of four
// million, so other processes that run fakes are unlikely to use it too. The caller holds mu.
func (d *Driver) freeAddr() netip.Addr {
	for {
		addr := netip.AddrFrom4([4]byte{127, byte(64 + rand.IntN(64)), byte(rand.IntN(256)), byte(1 + rand.IntN(254))})
		taken := false
		for _, s := range d.sandboxes {
			taken = taken || s.addr == addr
		}
		if !taken {
			return addr
		}
	}
}

// RemoveSandbox implements local.Driver.
func (d *Driver) RemoveSandbox(_ context.Context, replica string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.containers {
		if c.Replica == replica {
			return fmt.Errorf("sandbox %q still has container %q", replica, c.Name)
		}
	}
	delete(d.sandboxes, replica)
	return nil
}

// PutSecrets implements local.Driver.
func (d *Driver) PutSecrets(_ context.Context, replica, volume string, secrets map[string]resource.Secret) (changed bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.sandboxes[replica]
	if s == nil {
		return false, fmt.Errorf("put secrets: sandbox %q: %w", replica, local.ErrGone)
	}
	return s.disk.replace("volume "+volume, secrets), nil
}

// Create implements local.Driver.
func (d *Driver) Create(ctx context.Context, c local.Container) error {
	if _, err := d.Image(ctx, c.Image); err != nil {
		return err
	}
	b, err := readBehaviour(c)
	if err != nil {
		return err
	}
	if b.createError != "" {
		return fmt.Errorf("create container %q: %s", c.Name, b.createError)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sandboxes[c.Replica] == nil {
		return fmt.Errorf("create container %q: sandbox %q: %w", c.Name, c.Replica, local.ErrGone)
	}
	if d.containers[c.ID] != nil {
		return fmt.Errorf("create container %q: id %s is taken", c.Name, c.ID)
	}
	d.containers[c.ID] = &container{Container: c, behaviour: b, created: time.Now()}
	return nil
}

// Start implements local.Driver.
func (d *Driver) Start(_ context.Context, id string) (pid int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.containers[id]
	if c == nil {
		return 0, fmt.Errorf("start %s: %w", id, local.ErrGone)
	}
	if c.process != nil {
		return 0, fmt.Errorf("start container %q: it was started before", c.Name)
	}
	if c.behaviour.startError != "" {
		return 0, fmt.Errorf("start container %q: %s", c.Name, c.behaviour.startError)
	}
	d.lastPID++
	p := newProcess(d.sandboxes[c.Replica], c.Container, c.behaviour, d.lastPID)
	c.process, c.started = p, time.Now()
	if args := c.Args; strings.HasPrefix(c.Image, Write) && len(args) == 2 {
		if !p.disk.write(p.spec, args[0], args[1]) {
			p.behaviour.exitCode = 1
		}
	}
	p.outOfMemory = func() {
		d.watchers.Send(local.Event{Container: id, OOM: &local.OOM{
			At: time.Now(), Limit: uint64(c.Resources.Memory), Peak: uint64(c.Resources.Memory), Process: "fake",
		}})
	}
	d.processes.Go(func() {
		how := p.run(d.console)
		d.ended(c, p, how)
	})
	return p.pid, nil
}

// ended records the end of a process and reports it to the watchers.
func (d *Driver) ended(c *container, p *process, how exited) {
	if how.oom {
		p.outOfMemory()
	}
	exit := resource.Exit{Code: how.code, At: time.Now()}
	d.mu.Lock()
	c.exit = &exit
	if !d.watchers.Any() {
		// As with real containers, nobody knows how the process ended, because nobody waited for it.
		c.exit = &resource.Exit{Code: -1, At: exit.At, Reason: "Unknown"}
	}
	d.mu.Unlock()
	close(p.gone)
	d.watchers.Send(local.Event{Container: c.ID, PID: p.pid, Exit: &exit})
}

// Watch implements local.Driver. Its goroutine ends with the caller's ctx.
func (d *Driver) Watch(ctx context.Context) (<-chan local.Event, error) {
	w, out := d.watchers.Add(), make(chan local.Event)
	go w.Deliver(ctx, nil, out)
	return out, nil
}

// Pause implements local.Driver. Requests to a frozen process wait, and so do signals.
func (d *Driver) Pause(_ context.Context, id string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.containers[id]
	if c == nil || c.process == nil || c.exit != nil {
		return fmt.Errorf("pause %s: %w", id, local.ErrGone)
	}
	c.process.freeze()
	return nil
}

// Resume implements local.Driver.
func (d *Driver) Resume(_ context.Context, id string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.containers[id]
	if c == nil {
		return fmt.Errorf("resume %s: %w", id, local.ErrGone)
	}
	if c.process != nil {
		c.process.thaw()
	}
	return nil
}

// Kill implements local.Driver.
func (d *Driver) Kill(_ context.Context, id string, signal syscall.Signal) error {
	d.mu.Lock()
	c := d.containers[id]
	d.mu.Unlock()
	if c == nil {
		return fmt.Errorf("kill %s: %w", id, local.ErrGone)
	}
	if c.process != nil {
		c.process.signal(signal)
	}
	return nil
}

// Delete implements local.Driver.
func (d *Driver) Delete(ctx context.Context, id string) error {
	d.mu.Lock()
	c := d.containers[id]
	d.mu.Unlock()
	if c == nil {
		return nil
	}
	if c.process != nil {
		c.process.thaw()
		c.process.signal(syscall.SIGKILL)
		select {
		case <-c.process.gone:
		case <-ctx.Done():
			return fmt.Errorf("delete container %q: %w", c.Name, ctx.Err())
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.containers, id)
	d.sandboxes[c.Replica].disk.forget(c.Container)
	return nil
}

// List implements local.Driver.
func (d *Driver) List(context.Context) ([]local.SandboxStatus, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []local.SandboxStatus
	for _, name := range slices.Sorted(maps.Keys(d.sandboxes)) {
		s := d.sandboxes[name]
		status := local.SandboxStatus{Sandbox: s.Sandbox, Address: s.addr}
		for _, c := range d.containers {
			if c.Replica == name {
				status.Containers = append(status.Containers, c.status())
			}
		}
		list = append(list, status)
	}
	return list, nil
}

func (c *container) status() local.ContainerStatus {
	s := local.ContainerStatus{ID: c.ID, Name: c.Name, State: local.Created, Created: c.created, Started: c.started}
	switch {
	case c.exit != nil:
		s.State, s.Exit = local.Exited, c.exit
	case c.process != nil:
		s.State, s.PID, s.Paused = local.Running, c.process.pid, c.process.isFrozen()
	}
	return s
}

// Usage implements local.Driver. The fake's processes use nothing worth counting, but the limits and the number of
// processes are right. Their memory is what Use says.
func (d *Driver) Usage(_ context.Context, replica string) (runtimes.Usage, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sandboxes[replica] == nil {
		return runtimes.Usage{}, fmt.Errorf("usage of %q: %w", replica, local.ErrGone)
	}
	var u runtimes.Usage
	for _, c := range d.containers {
		if c.Replica == replica {
			u.MemoryLimit += uint64(c.Resources.Memory)
			m := runtimes.ContainerMemory{Container: c.Name, Limit: uint64(c.Resources.Memory)}
			if c.process != nil && c.exit == nil {
				m.Used = c.process.memory
			}
			u.Containers = append(u.Containers, m)
			if c.process != nil && c.exit == nil {
				u.Processes++
			}
		}
	}
	return u, nil
}

// Use sets how many bytes of memory each container of a replica is said to use.
func (d *Driver) Use(replica string, bytes uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.containers {
		if c.Replica == replica && c.process != nil {
			c.process.memory = bytes
		}
	}
}

// Crash ends the processes of a replica with a code, as if they had failed by themselves.
func (d *Driver) Crash(replica string, code int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.containers {
		if c.Replica == replica && c.process != nil {
			c.process.finish(exited{code: code})
		}
	}
}

// Listening implements local.Listener.
func (d *Driver) Listening(_ context.Context, id string) ([]netip.AddrPort, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.containers[id]
	if c == nil || c.process == nil || c.exit != nil {
		return nil, fmt.Errorf("container %q: %w", id, local.ErrGone)
	}
	var all []netip.AddrPort
	for _, other := range d.containers { // the containers of a replica share its ports
		if other.Replica == c.Replica && other.process != nil && other.exit == nil {
			all = append(all, other.process.listening()...)
		}
	}
	return all, nil
}
