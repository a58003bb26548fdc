package local

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"penstock/internal/resource"
	"penstock/internal/runtimes"
)

// wish is a revision without replicas that is to have a standby.
type wish struct {
	w    runtimes.Workload
	used time.Time // when it last had a replica; of revisions that are not known to have had one, when the engine first heard of it
}

// rest is what a keeper knows of its replica as a standby.
//
//	               wake                      sleep
//	created ──────────────> replica ────────────────────> paused
//	made, not started                <──────────────────  frozen
//	                                        wake
//
// It is ended in each of them as a replica is.
type rest struct {
	// Guarded by the engine's mu. kind is "" while it is a replica.
	kind    resource.Standby
	ready   bool
	since   time.Time
	claimed bool            // it was made, or asked for, by an Apply of this engine
	woken   context.Context // ends when it is woken; nil unless kind has been created
	wake    context.CancelFunc

	// The goroutine's own.
	is      resource.Standby // what its news have told it that kind is
	again   time.Time        // when to look at what is made
	tries   int              // to make it, that have failed in a row
	checked bool             // nothing is to be done before again
}

// standbyClaim is how long a standby of an earlier process is kept when no Apply is about its revision.
const standbyClaim = time.Minute

// The pauses between tries to make a standby, and between looks at one.
const (
	standbyAgain    = 10 * time.Second
	standbyAgainMax = 10 * time.Minute
)

// asleep says whether it is a standby. The caller holds the engine's mu.
func (k *keeper) asleep() bool { return k.rest.kind != "" }

// Standbys implements runtimes.Runtime.
func (e *Engine) Standbys(ctx context.Context) ([]runtimes.Standby, error) {
	if err := e.wait(ctx); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	var list []runtimes.Standby
	for _, k := range e.keepers {
		if !k.asleep() {
			continue
		}
		s := runtimes.Standby{Revision: k.rev.ID, Replica: k.name, Kind: k.rest.kind, Ready: k.rest.ready && !k.ending, Since: k.rest.since}
		for _, c := range k.view.Containers {
			if c.PID != 0 {
				s.PIDs = append(s.PIDs, c.PID)
			}
		}
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b runtimes.Standby) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Replica, b.Replica))
	})
	return list, nil
}

// standby is that of a revision, or nil. The caller holds mu.
func (e *Engine) standby(revision resource.ID) *keeper {
	for _, k := range e.keepers {
		if k.asleep() && !k.ending && k.rev.ID.Equal(revision) {
			return k
		}
	}
	return nil
}

// useStandby wakes the standby of a revision if it is what w wants, and ends it otherwise. The caller holds mu.
func (e *Engine) useStandby(w runtimes.Workload, wanted bool) (woken bool) {
	k := e.standby(w.Revision.ID)
	switch {
	case k == nil:
		return false
	case !wanted || !k.made(w):
		e.stop(k, runtimes.EndScaledIn)
		return false
	}
	now := time.Now()
	if k.rest.kind == resource.StandbyCreated {
		k.rest.wake()
	}
	k.rest.kind, k.rest.ready = "", false
	k.view.State, k.view.Reason, k.view.ReadySince, k.view.Created = resource.ReplicaCreating, "", time.Time{}, now
	k.view.Stage, k.view.Start, k.view.Load = resource.StageCreated, 0, 0
	k.inbox.put(note{wake: now})
	e.changed(k.rev.ID)
	return true
}

// lull freezes the replica of a revision that is to have none, of those in the order of their going, if the revision is to
// be kept so. The caller holds mu and stops the others.
func (e *Engine) lull(w runtimes.Workload, going []*keeper) (rest []*keeper) {
	last := len(going) - 1
	if w.Standby != resource.StandbyPaused || last < 0 || going[last].view.State != resource.ReplicaReady || !going[last].made(w) || e.cfg.Standbys < 1 {
		return going
	}
	k := going[last]
	k.rest.kind, k.rest.ready, k.rest.since, k.rest.claimed = resource.StandbyPaused, false, time.Now(), true
	k.inbox.put(note{sleep: true})
	e.changed(k.rev.ID)
	return going[:last]
}

// want notes what w wants to be ready while it has no replicas. had says whether it has had some until now. The caller
// holds mu.
func (e *Engine) want(w runtimes.Workload, had bool) {
	key := w.Revision.ID.Key()
	if w.Replicas > 0 || w.Standby == "" || w.Standby == resource.StandbyNone || e.cfg.Capacity.fits(w.Revision) != nil {
		delete(e.wishes, key)
		if k := e.standby(w.Revision.ID); k != nil {
			e.stop(k, runtimes.EndScaledIn)
		}
		return
	}
	now := &wish{w: w, used: time.Now()}
	if before := e.wishes[key]; before != nil && !had {
		now.used = before.used
	} else if k := e.standby(w.Revision.ID); k != nil && !had {
		now.used = k.rest.since
	}
	e.wishes[key] = now
	if k := e.standby(w.Revision.ID); k != nil {
		k.inbox.put(note{check: true})
	}
	e.balance()
}

// balance makes and ends standbys, so that the revisions that were used last have what they are to have and the budget is
// kept. The caller holds mu.
func (e *Engine) balance() {
	list := slices.SortedFunc(maps.Values(e.wishes), func(a, b *wish) int {
		return cmp.Or(b.used.Compare(a.used), cmp.Compare(a.w.Revision.ID.Key(), b.w.Revision.ID.Key()))
	})
	for i, wish := range list {
		k := e.standby(wish.w.Revision.ID)
		if k != nil {
			k.rest.claimed = true
			paused := k.rest.kind == resource.StandbyPaused
			if i < e.cfg.Standbys && k.made(wish.w) && (!paused || wish.w.Standby == resource.StandbyPaused) {
				continue
			}
			e.stop(k, runtimes.EndScaledIn)
		}
		if i < e.cfg.Standbys {
			k := newKeeper(e, e.newName(wish.w.Revision.ID), wish.w.Revision, wish.w.Env, time.Now())
			k.rest.kind, k.rest.is, k.rest.since, k.rest.claimed = resource.StandbyCreated, resource.StandbyCreated, k.created, true
			k.rest.woken, k.rest.wake = context.WithCancel(context.Background())
			e.add(k)
		}
	}
}

// evict ends standbys that hold memory, the least recently used first, when that makes room for so many bytes more. The
// caller holds mu.
func (e *Engine) evict(need int64) {
	var list []*keeper
	var free int64
	for _, k := range e.keepers {
		if n := e.promised[k.name]; k.rest.kind == resource.StandbyPaused {
			free += n
			if !k.ending {
				list = append(list, k)
			}
		}
	}
	if free < need {
		return
	}
	slices.SortFunc(list, func(a, b *keeper) int { return a.rest.since.Compare(b.rest.since) })
	free = 0
	for _, k := range e.keepers {
		if k.ending && k.rest.kind == resource.StandbyPaused {
			free += e.promised[k.name] // on its way
		}
	}
	for _, k := range list {
		if free >= need {
			return
		}
		free += e.promised[k.name]
		e.stop(k, runtimes.EndScaledIn)
	}
}

// dropUnclaimed ends the standbys of an earlier process about whose revisions nobody has asked.
func (e *Engine) dropUnclaimed() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, k := range e.keepers {
		if k.asleep() && !k.rest.claimed && !k.ending {
			e.stop(k, runtimes.EndScaledIn)
		}
	}
}

// made says whether a replica is one that w would make now. The caller holds mu.
func (k *keeper) made(w runtimes.Workload) bool {
	return !k.view.Created.Before(w.Revision.Restarted) && shape(k.rev, k.env) == shape(w.Revision, w.Env)
}

// shape is all of a revision that a replica is made from, but for the values of secrets.
func shape(rev resource.Revision, env []resource.EnvVar) string {
	text, err := json.Marshal(struct {
		Environment resource.ID
		Template    resource.Template
		Serving     resource.Serving
		Settings    resource.Settings
		Images      map[string]string
		Env         []resource.EnvVar
	}{rev.Environment, rev.Template, rev.Serving, rev.Settings, rev.Images, env})
	if err != nil {
		panic(err) // the record of a replica has the same and more
	}
	return string(text)
}

// look makes what a standby is to have, or makes it again when it is not any more what it would be made as now.
func (k *keeper) look(ctx context.Context) {
	if k.rest.again.After(time.Now()) || k.rest.checked && k.rest.again.IsZero() {
		return // after a failure not even a check is a reason to try before it is time
	}
	k.rest.checked, k.rest.again = true, time.Time{}
	var err error
	if k.rest.is == resource.StandbyPaused {
		err = k.unchanged(ctx)
	} else {
		err = k.prepare(ctx)
	}
	if ctx.Err() != nil || errors.Is(err, errWoken) {
		return
	}
	if err != nil && k.rest.is == resource.StandbyPaused {
		k.e.cfg.Log.Info("a frozen replica is not what it would be made as now; it is ended", "replica", k.name, "why", err)
		k.endStandby()
		return
	}
	ready := err == nil
	if err != nil {
		pause := min(standbyAgain<<min(k.rest.tries, 10), standbyAgainMax)
		k.rest.tries++
		k.rest.again = time.Now().Add(pause)
		k.e.cfg.Log.Warn("a standby cannot be made; the next replica starts without one", "replica", k.name, "again in", pause, "err", err)
	} else {
		k.rest.tries = 0
	}
	k.e.mu.Lock()
	defer k.e.mu.Unlock()
	if k.asleep() && !k.ending && k.rest.ready != ready { // or whoever is told would ask for a check
		k.rest.ready = ready
		k.view = k.status()
		k.e.changed(k.rev.ID)
	}
}

var errWoken = errors.New("it was woken")

// prepare creates the containers of a standby that are not there as they would be made now.
func (k *keeper) prepare(ctx context.Context) error {
	if no := k.e.cfg.Capacity.space(); no != nil && !k.touched {
		return errors.New(no.message)
	}
	if !k.sandbox {
		for _, c := range k.containers {
			if err := k.pull(ctx, c); err != nil {
				return err
			}
		}
	}
	if k.sandbox {
		stale, err := k.outdated(ctx)
		if err != nil || !stale {
			return err
		}
	}
	// One at a time, and behind the replicas that wait to be made.
	waiting, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(k.rest.woken, stop)()
	if err := k.e.preparing.enter(waiting, "", false); err != nil {
		return errors.Join(errWoken, err)
	}
	defer k.e.preparing.leave("", nil)
	revision := k.rev.ID.Key()
	if err := k.e.starts.enter(waiting, revision, true); err != nil {
		return errors.Join(errWoken, err)
	}
	defer func() { k.e.starts.leave(revision, k.e.replicasUp()) }()
	if !k.sandbox {
		if err := k.makeSandbox(ctx); err != nil {
			return err
		}
	}
	for _, c := range k.containers {
		if waiting.Err() != nil {
			return errWoken
		}
		if err := k.make(ctx, c); err != nil {
			return fmt.Errorf("container %q: %w", c.spec.Name, err)
		}
	}
	return nil
}

// outdated says whether a container of a standby is not there as it would be made now.
func (k *keeper) outdated(ctx context.Context) (bool, error) {
	for _, c := range k.containers {
		_, sum, err := k.plan(ctx, c)
		if err != nil {
			return false, fmt.Errorf("container %q: %w", c.spec.Name, err)
		}
		if !c.fresh || c.sum != sum {
			return true, nil
		}
	}
	return false, nil
}

// unchanged returns an error when a frozen replica has other secrets than it would be given now. What an earlier process of
// the platform has given it is not known; it is taken to be what is found at the first look.
func (k *keeper) unchanged(ctx context.Context) error {
	for _, c := range k.containers {
		if c.init {
			continue
		}
		_, sum, err := k.plan(ctx, c)
		if err != nil {
			return fmt.Errorf("container %q: %w", c.spec.Name, err)
		}
		if c.sum == "" {
			c.sum = sum
		}
		if c.sum != sum {
			return fmt.Errorf("container %q: its secrets or storages have changed", c.spec.Name)
		}
	}
	return nil
}

// digest stands for what a container is made from. It is of values of secrets too, so it is in memory only, but for
// containers that have none.
func digest(c Container) (string, error) {
	text, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}

// plain says whether all that a container is made from is in the replica's record.
func (k *keeper) plain(c resource.Container) bool {
	return !slices.ContainsFunc(c.Env, func(v resource.EnvVar) bool { return v.SecretRef != "" }) &&
		!slices.ContainsFunc(c.Mounts, func(m resource.VolumeMount) bool { return k.volume(m.Volume).Type != resource.EmptyDir })
}

// sums are the digests of a standby's containers that may be kept, by name.
func (k *keeper) sums(ctx context.Context) (map[string]string, error) {
	all := map[string]string{}
	for _, c := range k.containers {
		if !k.plain(c.spec) {
			continue
		}
		_, sum, err := k.plan(ctx, c)
		if err != nil {
			return nil, err
		}
		all[c.spec.Name] = sum
	}
	return all, nil
}

// freeze makes a replica a standby that keeps its memory.
func (k *keeper) freeze(ctx context.Context) {
	k.rest.is, k.rest.checked = resource.StandbyPaused, false
	k.was, k.ready = false, time.Time{}
	whole := true
	for _, c := range k.containers {
		if c.done {
			continue
		}
		if c.phase != running {
			whole = false
			continue
		}
		c.quiet()
	}
	for _, c := range k.containers {
		if !whole {
			break
		}
		if c.phase != running {
			continue
		}
		if err := k.e.cfg.Driver.Pause(ctx, c.id); err != nil {
			if ctx.Err() == nil {
				k.e.cfg.Log.Warn("a container cannot be frozen; its replica is ended", "replica", k.name, "container", c.spec.Name, "err", err)
			}
			whole = false
			break
		}
		c.frozen = true
	}
	if !whole {
		k.endStandby()
		return
	}
	k.e.tellWaiting() // they may have its memory
	k.tell(normal, "ReplicaFrozen", 0, "Replica '%s' is frozen until there are requests. It keeps its memory.", k.name)
}

// quiet ends the probes of a container. What they have found meanwhile does not count.
func (c *container) quiet() {
	if c.stopProbes != nil {
		c.stopProbes()
	}
	c.stopProbes = func() {}
	c.runs++
	c.ready, c.asked, c.unhealthy = false, true, ""
}

// wake makes a standby a replica.
func (k *keeper) wake(ctx context.Context, at time.Time) {
	was := k.rest.is
	k.rest.is, k.created, k.since = "", at, at
	if was == resource.StandbyCreated {
		k.life.Created = at.UTC().Round(0)
		return // advance does the rest
	}
	began := time.Now()
	for _, c := range k.containers {
		if c.phase != running {
			continue
		}
		if err := k.thaw(ctx, c); err != nil {
			if ctx.Err() != nil {
				return
			}
			k.e.cfg.Log.Warn("a frozen container cannot be thawed; it is killed and started again", "replica", k.name, "container", c.spec.Name, "err", err)
			k.stopContainer(ctx, c, 0, "ThawFailure")
			continue
		}
		k.probe(ctx, c, at)
	}
	k.tell(normal, "ReplicaThawed", time.Since(began), "Replica '%s' runs again.", k.name)
}

// thaw lets the processes of a container run again.
func (k *keeper) thaw(ctx context.Context, c *container) error {
	if !c.frozen {
		return nil
	}
	if err := k.e.cfg.Driver.Resume(ctx, c.id); err != nil {
		return err
	}
	c.frozen = false
	return nil
}

// fell takes the end of a container of a standby. It says no when the replica has been woken by now, and then it is an end
// as any other.
func (k *keeper) fell(c *container, exit resource.Exit) bool {
	k.e.mu.Lock()
	asleep := k.asleep()
	k.e.mu.Unlock()
	if !asleep {
		return false
	}
	exit.Reason = reason(exit)
	if c.oom != nil && exit.At.Sub(c.oom.At) <= oomIsCause {
		exit.OOM, exit.Reason = true, reason(resource.Exit{OOM: true})
	}
	c.phase, c.pid, c.last, c.frozen = idle, 0, &exit, false
	k.tellEnd(c, exit, "", exit.At.Sub(c.started))
	k.endStandby()
	return true
}

// endStandby ends a standby that is of no use. Another is made if there is to be one.
func (k *keeper) endStandby() {
	k.e.mu.Lock()
	defer k.e.mu.Unlock()
	if k.asleep() {
		k.e.stop(k, runtimes.EndScaledIn)
		k.e.balance()
	}
}

// adoptStandby finds out whether what was adopted is a standby. The caller holds the engine's mu, and adds the keeper
// after it.
func (k *keeper) adoptStandby(s SandboxStatus, r record) (useless bool) {
	whole := true
	for _, c := range k.containers {
		c.frozen = slices.ContainsFunc(s.Containers, func(have ContainerStatus) bool { return have.ID == c.id && have.Paused })
		if c.frozen {
			k.rest.kind = resource.StandbyPaused
		}
		whole = whole && (c.done || c.phase == running)
	}
	switch {
	case k.ending:
		k.rest.kind = ""
		return false
	case k.rest.kind == resource.StandbyPaused:
		for _, c := range k.containers {
			c.quiet()
		}
	case r.Standby && k.life.Started.IsZero():
		k.rest.kind, k.admitted, k.sandbox = resource.StandbyCreated, false, true
		k.rest.woken, k.rest.wake = context.WithCancel(context.Background())
		whole = len(s.Containers) == len(k.containers)
		for _, have := range s.Containers {
			whole = whole && have.State == Created
		}
		for _, c := range k.containers {
			c.done, c.missed = false, nil
			if c.sum = r.Sums[c.spec.Name]; c.sum != "" {
				c.fresh = true
			}
		}
	case r.Standby:
		if !k.life.Created.IsZero() {
			k.created = k.life.Created
		}
		return false
	}
	if !k.asleep() {
		return false
	}
	k.rest.is, k.rest.since = k.rest.kind, k.created
	k.rest.ready = whole
	return !whole
}
