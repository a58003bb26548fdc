package containerd

import (
	"context"
	"sync"
	"syscall"
	"time"

	eventsapi "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/typeurl/v2"

	"penstock/internal/resource"
	"penstock/internal/runtimes/local"
)

// watcher is one caller of Watch. Events queue for it, because an exit that is not told is a replica that nobody
// restarts; there are few, and as many as there are containers.
type watcher struct {
	mu    sync.Mutex
	queue []local.Event
	wake  chan struct{}
}

func (w *watcher) push(e local.Event) {
	w.mu.Lock()
	w.queue = append(w.queue, e)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *watcher) take() []local.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	q := w.queue
	w.queue = nil
	return q
}

// Watch implements local.Driver.
func (d *Driver) Watch(ctx context.Context) (<-chan local.Event, error) {
	w := &watcher{wake: make(chan struct{}, 1)}
	d.mu.Lock()
	d.watchers[w] = struct{}{}
	d.mu.Unlock()
	out := make(chan local.Event)
	d.wg.Go(func() {
		defer close(out)
		defer func() {
			d.mu.Lock()
			delete(d.watchers, w)
			d.mu.Unlock()
		}()
		for {
			for _, e := range w.take() {
				select {
				case out <- e:
				case <-ctx.Done():
					return
				case <-d.closed:
					return
				}
			}
			select {
			case <-w.wake:
			case <-ctx.Done():
				return
			case <-d.closed:
				return
			}
		}
	})
	return out, nil
}

func (d *Driver) tell(e local.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for w := range d.watchers {
		w.push(e)
	}
}

// follow turns containerd's events into ours until ctx ends.
func (d *Driver) follow(ctx context.Context, ch <-chan *events.Envelope, errs <-chan error) {
	for {
		select {
		case e := <-ch:
			d.handle(e)
		case err := <-errs:
			if err != nil && ctx.Err() == nil {
				d.log.Error("containerd's events have ended; exits show in the list only", "err", err)
			}
			return
		case <-ctx.Done():
			return
		}
	}
}

func (d *Driver) handle(e *events.Envelope) {
	event, err := typeurl.UnmarshalAny(e.Event)
	if err != nil {
		d.log.Warn("an event of containerd cannot be read and is passed over", "topic", e.Topic, "err", err)
		return
	}
	switch event := event.(type) {
	case *eventsapi.TaskExit:
		if event.ID != event.ContainerID {
			return // a further process in a container
		}
		if c := d.byKey(event.ContainerID); c != nil {
			d.ended(c, d.exitOf(c, event.ExitStatus, event.ExitedAt.AsTime()))
		}
	case *eventsapi.ImageCreate:
		d.tell(local.Event{Image: event.Name})
	case *eventsapi.ImageUpdate:
		d.tell(local.Event{Image: event.Name})
	case *eventsapi.TaskOOM:
		if c := d.byKey(event.ContainerID); c != nil {
			d.tellOOM(c, e.Timestamp, true)
		}
	}
}

func (d *Driver) byKey(key string) *container {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.containers {
		if c.key == key {
			return c
		}
	}
	return nil
}

// ended records an exit and tells of it, once.
func (d *Driver) ended(c *container, exit resource.Exit) {
	if !c.setExit(exit) {
		return
	}
	c.mu.Lock()
	err := c.keepStatus()
	c.mu.Unlock()
	if err != nil {
		d.log.Warn("an exit was not written down; after a restart of the platform its code will be unknown", "container", c.id, "err", err)
	}
	d.tell(local.Event{Container: c.id, Exit: &exit})
}

func (c *container) setExit(exit resource.Exit) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.exit != nil {
		return false
	}
	c.exit = &exit
	close(c.ended)
	return true
}

// exitOf says how a process ended. The kernel's word on OOM kills is asked here too, because the event of one may
// come after the exit that it caused.
func (d *Driver) exitOf(c *container, code uint32, at time.Time) resource.Exit {
	exit := resource.Exit{Code: int(code), At: at, Reason: "Error"}
	d.tellOOM(c, at, false)
	c.mu.Lock()
	oomed := c.oomed > 0
	c.mu.Unlock()
	switch {
	case code == 0:
		exit.Reason = "Completed"
	case oomed && code == 128+uint32(syscall.SIGKILL):
		exit.OOM, exit.Reason = true, "OOMKilled"
	}
	return exit
}

// tellOOM tells watchers of an OOM kill that they have not heard of.
func (d *Driver) tellOOM(c *container, at time.Time, announced bool) {
	c.mu.Lock()
	told := c.oomed
	c.mu.Unlock()
	kills, oom, err := d.cgroups.oom(c.cgroup)
	if announced {
		// The announcement comes when the limit is met, a moment before the kill is counted and logged.
		for wait := time.Millisecond; err == nil && kills <= told && wait < 128*time.Millisecond; wait *= 2 {
			time.Sleep(wait)
			kills, oom, err = d.cgroups.oom(c.cgroup)
		}
	} else if err != nil || kills <= told {
		return // none, or its cgroup has gone and with it the answer
	}
	c.mu.Lock()
	c.oomed = max(kills, told+1)
	c.mu.Unlock()
	oom.At = at
	oom.Process = killedProcess("/dev/kmsg", c.cgroup)
	d.tell(local.Event{Container: c.id, OOM: &oom})
}
