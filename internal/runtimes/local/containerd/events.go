package containerd

import (
	"context"
	"syscall"
	"time"

	eventsapi "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/typeurl/v2"

	"penstock/internal/resource"
	"penstock/internal/runtimes/local"
)

// Watch implements local.Driver.
func (d *Driver) Watch(ctx context.Context) (<-chan local.Event, error) {
	w, out := d.watchers.Add(), make(chan local.Event)
	d.wg.Go(func() { w.Deliver(ctx, d.closed, out) })
	return out, nil
}

// follow translates containerd's events into the driver's until ctx ends.
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
			return // an additional process in a container
		}
		if c := d.byKey(event.ContainerID); c != nil {
			d.ended(c, d.exitOf(c, event.ExitStatus, event.ExitedAt.AsTime()))
		}
	case *eventsapi.ImageCreate:
		d.watchers.Send(local.Event{Image: event.Name})
	case *eventsapi.ImageUpdate:
		d.watchers.Send(local.Event{Image: event.Name})
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

// ended records an exit and reports it, once.
func (d *Driver) ended(c *container, exit resource.Exit) {
	if !c.setExit(exit) {
		return
	}
	c.mu.Lock()
	err := c.keepStatus()
	pid := c.pid
	c.mu.Unlock()
	if err != nil {
		d.log.Warn("an exit was not written down; after a restart of the platform its code will be unknown", "container", c.id, "err", err)
	}
	d.watchers.Send(local.Event{Container: c.id, PID: pid, Exit: &exit})
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

// exitOf describes how a process ended. It also asks the kernel about OOM kills, because the OOM event may come after
// the exit that it caused.
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

// tellOOM reports an OOM kill to the watchers, unless they already know about it.
func (d *Driver) tellOOM(c *container, at time.Time, announced bool) {
	c.mu.Lock()
	told := c.oomed
	c.mu.Unlock()
	kills, oom, err := d.cgroups.oom(c.cgroup)
	if announced {
		// The announcement comes when the limit is reached, a moment before the kill is counted and logged.
		for wait := time.Millisecond; err == nil && kills <= told && wait < 128*time.Millisecond; wait *= 2 {
			time.Sleep(wait)
			kills, oom, err = d.cgroups.oom(c.cgroup)
		}
	} else if err != nil || kills <= told {
		return // there was none, or its cgroup has gone, so there is no way to know
	}
	c.mu.Lock()
	c.oomed = max(kills, told+1)
	c.mu.Unlock()
	oom.At = at
	oom.Process = killedProcess("/dev/kmsg", c.cgroup)
	d.watchers.Send(local.Event{Container: c.id, OOM: &oom})
}
