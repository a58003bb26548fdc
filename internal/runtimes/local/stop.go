package local

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"penstock/internal/resource"
)

// oomIsCause is how long after an OOM kill the end of a container is attributed to it. The kernel kills one process. If
// that is not the first process of the container, the first one may take a moment to exit.
const oomIsCause = 2 * time.Second

// outOfMemory reports a process that the kernel killed at the container's memory limit. If it was a child, the
// container keeps running, and nothing else would report it.
func (k *keeper) outOfMemory(c *container, o *OOM) {
	c.oom = o
	process := o.Process
	if process == "" {
		process = "a process"
	}
	k.tell(warning, "OOMKilled", 0, "Container '%s' reached its memory limit of %s (peak %s): the kernel killed %s.",
		c.spec.Name, bytes(int64(o.Limit)), bytes(int64(o.Peak)), process)
}

// exited handles the end of a container's process that will be restarted.
func (k *keeper) exited(c *container, exit resource.Exit) {
	why := c.why
	if why == probeFailure {
		exit.Cause = c.unhealthy
	}
	c.why, c.killAt = "", time.Time{}
	c.phase, c.pid = idle, 0
	c.stopProbes()
	if c.oom != nil && exit.At.Sub(c.oom.At) <= oomIsCause {
		exit.OOM = true
	}
	exit.Reason = reason(exit)
	if c.init && exit.Code == 0 {
		k.initialized(c, exit, exit.At.Sub(c.started))
		return
	}
	if k.once.set {
		k.ended(c, exit, why, exit.At.Sub(c.started))
		return
	}
	if !k.was {
		k.failures++
	}
	if ran := exit.At.Sub(c.started); ran >= k.e.cfg.Backoff.Reset {
		c.ends = 0
	}
	c.ends++
	k.tellEnd(c, exit, why, exit.At.Sub(c.started))
	k.again(c, exit)
}

// over handles an end that nobody saw when it happened.
func (k *keeper) over(c *container, exit resource.Exit) {
	exit.Reason = reason(exit)
	if c.init && exit.Code == 0 {
		k.initialized(c, exit, 0)
		return
	}
	if k.once.set {
		k.ended(c, exit, "", 0)
		return
	}
	c.ends++
	k.tellEnd(c, exit, "", 0)
	k.again(c, exit)
}

// again sets when the container is restarted.
func (k *keeper) again(c *container, exit resource.Exit) {
	k.was, k.since = false, exit.At
	c.last, c.ready = &exit, false
	pause := k.pause(c)
	c.due = time.Now().Add(pause)
	c.trouble = fmt.Sprintf("container '%s' %s; end %d in a row", c.spec.Name, exit, c.ends)
	if pause > 0 {
		c.trouble += fmt.Sprintf(", started again after %s", round(pause))
		k.tell(warning, "ContainerBackOff", 0, "Back-off restarting failed container '%s': end %d in a row, the next start is in %s.",
			c.spec.Name, c.ends, round(pause))
	}
}

// completed is the reason for an exit with code 0.
const completed = "Completed"

// reason returns Kubernetes' word for the reason of an exit.
func reason(e resource.Exit) string {
	switch {
	case e.OOM:
		return "OOMKilled"
	case e.Code < 0:
		return "Unknown"
	case e.Code == 0:
		return completed
	default:
		return "Error"
	}
}

// tellEnd reports a container's end. why is empty if it ended by itself.
func (k *keeper) tellEnd(c *container, exit resource.Exit, why string, ran time.Duration) {
	switch {
	case why != "":
	case exit.OOM, exit.Code < 0:
		why = exit.Reason
	default:
		why = "ProcessExited"
	}
	k.tell(why != "ManuallyStopped" && why != completed, "ContainerTerminated", ran, "Container '%s' was terminated with exit code '%d' and reason '%s'",
		c.spec.Name, exit.Code, why)
}

// killWait is how long the keeper waits for a killed process to end before it deletes the container anyway. A process
// in a stuck system call can take that long.
const killWait = 10 * time.Second

// terminate ends the replica: SIGTERM to all its containers, the exact grace period, SIGKILL, and then removal. If ctx
// ends first, the replica stays as it is then.
func (k *keeper) terminate(ctx context.Context) {
	k.publish()
	began := time.Now()
	grace := max(0, k.rev.Template.Grace)
	if !k.once.set {
		if told := k.told(); told.Before(began) {
			grace = max(0, grace-began.Sub(told)) // what is left of it: an earlier process told the replica to end
		}
	}
	for _, c := range k.containers {
		if c.missed != nil {
			k.endedAway(c)
		}
	}
	sign := syscall.SIGTERM
	if grace == 0 {
		sign, grace = syscall.SIGKILL, killWait
	}
	for _, c := range k.containers {
		if c.up() {
			if err := k.thaw(ctx, c); err != nil && ctx.Err() == nil {
				k.e.cfg.Log.Warn("a frozen container cannot be thawed; it is killed when it is deleted", "replica", k.name, "container", c.spec.Name, "err", err)
			}
			c.stopProbes()
			k.signal(ctx, c, sign)
		}
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	for k.anyUp() {
		select {
		case <-ctx.Done():
			return
		case <-k.inbox.some:
			for _, n := range k.inbox.take() {
				k.handleEnd(n, began)
			}
			k.publish()
		case <-timer.C:
			if sign == syscall.SIGKILL {
				k.e.cfg.Log.Warn("killed processes are not seen to end; deleting their containers", "replica", k.name)
				k.endedForGood()
				k.clear(ctx)
				return
			}
			sign = syscall.SIGKILL
			timer.Reset(killWait)
			for _, c := range k.containers {
				if c.up() {
					k.kill(ctx, c)
				}
			}
		}
	}
	k.endedForGood()
	k.clear(ctx)
}

// endedAway handles the end of a container that ended while the platform was down, after its replica was told to end.
func (k *keeper) endedAway(c *container) {
	exit := *c.missed
	exit.Reason = reason(exit)
	c.missed, c.last = nil, &exit
	k.tellEnd(c, exit, "ManuallyStopped", 0)
}

func (k *keeper) anyUp() bool {
	for _, c := range k.containers {
		if c.up() {
			return true
		}
	}
	return false
}

// handleEnd processes a note while the replica ends.
func (k *keeper) handleEnd(n note, began time.Time) {
	for _, c := range k.containers {
		switch {
		case c.id != n.container:
		case n.oom != nil:
			k.outOfMemory(c, n.oom)
		case n.exit != nil && c.up() && (n.pid == 0 || n.pid == c.pid):
			exit := *n.exit
			exit.Reason = reason(exit)
			c.phase, c.pid, c.last, c.ready = idle, 0, &exit, false
			k.tellEnd(c, exit, "ManuallyStopped", time.Since(began))
		}
	}
}

// Pauses between attempts to remove a replica that the driver fails to remove.
const (
	clearAgain    = time.Second
	clearAgainMax = 30 * time.Second
)

// clear removes all of the replica. It retries until that succeeds, because nothing else would remove what is left.
func (k *keeper) clear(ctx context.Context) {
	for pause := clearAgain; ; pause = min(2*pause, clearAgainMax) {
		err := k.tryClear(ctx)
		if err == nil {
			k.removed = true
			return
		}
		if ctx.Err() != nil {
			return
		}
		k.e.cfg.Log.Warn("a replica cannot be removed; trying again", "replica", k.name, "in", pause, "err", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

func (k *keeper) tryClear(ctx context.Context) error {
	if !k.touched {
		return nil
	}
	for _, c := range k.containers {
		if err := k.e.cfg.Driver.Delete(ctx, c.id); err != nil {
			return fmt.Errorf("delete container %q: %w", c.spec.Name, err)
		}
		c.exists, c.phase = false, idle
	}
	if err := k.e.cfg.Driver.RemoveSandbox(ctx, k.name); err != nil {
		return fmt.Errorf("remove sandbox: %w", err)
	}
	return nil
}
