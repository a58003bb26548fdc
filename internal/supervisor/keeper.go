package supervisor

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"syscall"
	"time"
)

// A role that dies is restarted at once. If it dies again soon, the wait before the next start doubles each time.
const (
	firstWait = 100 * time.Millisecond
	longWait  = 10 * time.Second
	// settled is how long a process must have run for the wait to start again from the beginning.
	settled = 30 * time.Second
	// firstAttempts is how often a role may die before it was ever ready. After that the server gives up, because an
	// operator must fix the cause.
	firstAttempts = 3
)

// keeper keeps one role running.
type keeper struct {
	role  Role
	log   *slog.Logger
	start func() (*process, error)
	// end stops the whole server.
	end        context.CancelCauseFunc
	handover   chan chan error
	everReady  chan struct{}
	readyLimit time.Duration
	stopLimit  time.Duration

	draining sync.WaitGroup
}

// run keeps the role running until ctx ends, then stops it.
func (k *keeper) run(ctx context.Context) {
	defer k.draining.Wait()
	wait := time.Duration(0)
	served := false
	for attempt := 1; ctx.Err() == nil; attempt++ {
		p, err := k.start()
		if err == nil {
			p, err = k.watch(ctx, p, &served)
			if err == nil {
				return
			}
			if time.Since(p.began) >= settled {
				wait = 0
			}
		}
		if !served && attempt >= firstAttempts {
			k.end(fmt.Errorf("role %s did not start in %d attempts: %w; the log above says why", k.role.Name, attempt, err))
			return
		}
		k.log.Error("role died; it is started again", "err", err, "in", wait)
		k.pause(ctx, wait)
		wait = min(max(firstWait, 2*wait), longWait)
	}
}

// pause waits before the next start. A hand-over ends the wait, because it starts a process itself.
func (k *keeper) pause(ctx context.Context, wait time.Duration) {
	if wait == 0 {
		return
	}
	select {
	case <-time.After(wait):
	case answer := <-k.handover:
		answer <- nil
	case <-ctx.Done():
	}
}

// watch returns an error if the role's process died by itself, and nil if it was stopped because ctx ended.
func (k *keeper) watch(ctx context.Context, p *process, served *bool) (*process, error) {
	ready := p.ready
	for {
		select {
		case <-ready:
			ready = nil
			k.log.Info("role is ready", "pid", p.pid, "took", time.Since(p.began).Round(time.Millisecond))
			if !*served {
				*served = true
				close(k.everReady)
			}
		case <-p.askStop:
			k.end(errStopAsked)
			<-ctx.Done()
		case <-p.done:
			return p, fmt.Errorf("process %d: %s", p.pid, p.exit)
		case answer := <-k.handover:
			next, err := k.replace(ctx, p)
			answer <- err
			if next != p {
				p, ready = next, next.ready
			}
		case <-ctx.Done():
			k.log.Info("role ends", "pid", p.pid)
			k.finish(ctx, p, k.stopLimit)
			return p, nil
		}
	}
}

// replace hands the role over to a new process and returns the process that now has the role.
func (k *keeper) replace(ctx context.Context, old *process) (*process, error) {
	if !k.role.Overlap {
		k.finish(ctx, old, k.stopLimit)
	}
	next, err := k.start()
	if err != nil {
		return old, err
	}
	if err := k.awaitReady(ctx, next); err != nil {
		if k.role.Overlap {
			k.kill(next)
			<-next.done
			return old, err
		}
		return next, err // watch starts another when this one dies
	}
	if k.role.Overlap {
		k.log.Info("old process drains", "pid", old.pid)
		k.draining.Go(func() {
			k.finish(ctx, old, k.role.DrainLimit)
			k.log.Info("old process has drained", "pid", old.pid)
		})
	}
	return next, nil
}

func (k *keeper) awaitReady(ctx context.Context, p *process) error {
	limit := time.NewTimer(k.readyLimit)
	defer limit.Stop()
	select {
	case <-p.ready:
		return nil
	case <-p.done:
		return fmt.Errorf("process %d ended before it was ready: %s", p.pid, p.exit)
	case <-limit.C:
		return fmt.Errorf("process %d was not ready within %s", p.pid, k.readyLimit)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// finish asks the process to end and waits for it. It kills the process after the limit, or when the stop limit has passed
// since the server began to stop.
func (k *keeper) finish(ctx context.Context, p *process, limit time.Duration) {
	if err := p.signal(syscall.SIGTERM); err != nil {
		k.log.Warn("role cannot be asked to end", "err", err)
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.done:
		return
	case <-timer.C:
	case <-ctx.Done():
		stop := time.NewTimer(k.stopLimit)
		defer stop.Stop()
		select {
		case <-p.done:
			return
		case <-stop.C:
		case <-timer.C:
		}
	}
	k.log.Warn("role did not end in time and is killed", "pid", p.pid)
	k.kill(p)
	<-p.done
}

func (k *keeper) kill(p *process) {
	if err := p.signal(syscall.SIGKILL); err != nil {
		k.log.Warn("role cannot be killed", "err", err)
	}
}
