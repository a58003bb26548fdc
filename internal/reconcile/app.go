package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"penstock/internal/resource"
	"penstock/internal/runtimes"
	"penstock/internal/store"
)

// app makes the replicas of one app match its document.
func (r *Reconciler) app(ctx context.Context, id resource.ID) error {
	app, err := r.cfg.Store.Apps().Get(ctx, id)
	if errors.Is(err, resource.ErrNotFound) {
		return r.ended(ctx, id, false)
	}
	if err != nil {
		return err
	}
	if err := r.ended(ctx, id, true); err != nil {
		return err
	}
	revisions, err := r.cfg.Store.Revisions().List(ctx, store.Scope{Parent: id})
	if err != nil {
		return err
	}
	slices.SortFunc(revisions, func(a, b resource.Revision) int { return a.Created.Compare(b.Created) })
	if app.Provisioning() == resource.Deleting {
		return r.delete(ctx, app, revisions)
	}
	env, err := r.cfg.Store.Environments().Get(ctx, app.Environment)
	if err != nil {
		return err
	}
	latest, made, err := r.latest(ctx, app, env, revisions)
	if err != nil {
		return r.fail(ctx, app, err)
	}
	if made {
		revisions = append(revisions, latest)
	} else { // its settings may be new
		revisions[slices.IndexFunc(revisions, func(rev resource.Revision) bool { return rev.ID.Key() == latest.ID.Key() })] = latest
	}

	if app.Configuration.Mode == resource.Multiple {
		if err := r.configure(ctx, latest, revisions); err != nil {
			return err
		}
	}
	// The engine reports the changes that Apply makes, and that triggers the next pass.
	running, err := r.look(ctx, id)
	if err != nil {
		return err
	}
	counts := map[string]replicaCount{}
	refused := map[string]error{}
	for _, rev := range revisions {
		key := rev.ID.Key()
		if !wants(app, rev) {
			r.forget(rev.ID)
			continue
		}
		c := r.countReplicas(app, rev, running[key])
		counts[key] = c
		w := runtimes.Workload{Revision: rev, Replicas: c.wanted, Env: appEnv(app, env, rev), Standby: rev.Settings.Standby}
		err := r.apply(ctx, w, c)
		if err != nil && !errors.Is(err, runtimes.ErrTooLarge) {
			return fmt.Errorf("apply revision %s: %w", rev.Name(), err)
		}
		refused[key] = err
	}
	var idle time.Duration
	for i, rev := range revisions {
		key := rev.ID.Key()
		var v verdict
		if wants(app, rev) {
			v = judge(time.Now(), r.cfg.Limits.StayUp, rev, counts[key], running[key], refused[key])
		} else {
			v = verdict{state: resource.RevisionStopped}
		}
		if v.again > 0 {
			r.queue.later(app.ID, v.again)
		}
		switch isLatest := rev.ID.Key() == latest.ID.Key(); {
		case !isLatest, !isStarting(rev, v):
			r.courses.forget(rev.ID)
		default:
			idle = r.idle(ctx, app, rev, running[key])
			if rev.Settings.Behaviour == resource.Azure && (rev.State == resource.RevisionDegraded || idle >= r.cfg.Limits.Unhealthy) {
				v.state = resource.RevisionDegraded
			}
		}
		if revisions[i], err = r.note(ctx, app, rev, v); err != nil {
			return err
		}
		if rev.Ready.IsZero() && !revisions[i].Ready.IsZero() {
			r.Touch(app.ID) // it follows its scale rules from now on
		}
		if rev.ID.Key() == latest.ID.Key() {
			latest = revisions[i]
		}
	}
	if app, err = r.promote(ctx, app, latest, revisions, running[latest.ID.Key()]); err != nil {
		return err
	}
	if revisions, err = r.deactivate(ctx, app, revisions, latest); err != nil {
		return err
	}
	going := map[string][]resource.Replica{}
	var all []resource.Replica
	left := 0
	for _, rev := range revisions {
		key := rev.ID.Key()
		left += len(running[key])
		if wants(app, rev) {
			going[key] = outgoing(running[key], counts[key])
		} else {
			going[key] = staying(running[key])
		}
		all = append(all, going[key]...)
	}
	r.departures.set(app.ID, all)
	version, err := r.publish(ctx, app.ID)
	if err != nil || !r.table.isOpen() {
		return err
	}
	if err := r.settle(ctx, app, latest, revisions, left, version, idle); err != nil {
		return err
	}
	for _, rev := range revisions {
		key := rev.ID.Key()
		r.depart(ctx, rev, going[key], version, rev.Settings.DrainLimit)
		if wants(app, rev) {
			continue
		}
		if err := r.remove(ctx, rev, going[key]); err != nil {
			return err
		}
	}
	return r.purge(ctx, app, revisions, running)
}

// forget drops what is measured of a revision that should have no replicas.
func (r *Reconciler) forget(revision resource.ID) {
	r.cfg.Scale.Forget(revision)
	r.cfg.Recycle.Forget(revision)
}

// wants reports whether a revision should have replicas.
func wants(app resource.App, rev resource.Revision) bool { return rev.Active() && !app.Stopped }

// latest returns the revision for the app's template and creates it if there is none.
func (r *Reconciler) latest(ctx context.Context, app resource.App, env resource.Environment, revisions []resource.Revision) (latest resource.Revision, made bool, err error) {
	settings, err := env.Settings(app.Tags)
	if err != nil {
		return latest, false, err
	}
	at := slices.IndexFunc(revisions, func(rev resource.Revision) bool { return rev.Name() == app.LatestRevision })
	if at >= 0 {
		latest = revisions[at]
	}
	fresh := at < 0 || !latest.Template.Equal(app.Template)
	var images map[string]string
	if fresh {
		if images, err = r.digests(ctx, app.Keyring(), app.Template); err != nil {
			return latest, false, err
		}
	} else if app.Observed < app.Generation && settings.Behaviour != resource.Azure && app.Template.RevisionSuffix == "" {
		// If a tag was pushed again, the next write of the app creates a revision; Azure compares only the text. An
		// image that has been deleted since is no reason to refuse a write that does not need it.
		images, err = r.digests(ctx, app.Keyring(), app.Template)
		fresh = err == nil && !reflect.DeepEqual(latest.Images, images)
	}
	serving := app.Configuration.Ingress.Serving()
	if !fresh {
		if latest.Settings == settings && latest.Serving == serving {
			return latest, false, nil
		}
		latest, err = r.cfg.Store.Revisions().Observe(ctx, latest.ID, func(_ resource.Revision, status *resource.RevisionStatus) error {
			status.Settings, status.Serving = settings, serving
			return nil
		})
		return latest, false, err
	}
	names := make([]string, len(revisions))
	for i, rev := range revisions {
		names[i] = rev.Name()
	}
	name, err := resource.RevisionName(app.ID.Base(), app.Template.RevisionSuffix, names)
	if err != nil {
		return latest, false, err
	}
	// If the revision already exists, it was created before a crash and the app's status does not name it yet.
	latest, _, err = r.cfg.Store.Revisions().Create(ctx, resource.Revision{
		ID:             app.ID.Child("revisions", name),
		Environment:    app.Environment,
		Created:        time.Now().UTC(),
		Generation:     app.Generation,
		Template:       app.Template,
		Images:         images,
		RevisionStatus: resource.RevisionStatus{Serving: serving, Settings: settings, State: resource.RevisionActivating},
	}, nil)
	if err != nil {
		return latest, false, err
	}
	_, err = r.cfg.Store.Apps().Observe(ctx, app.ID, func(_ resource.App, status *resource.AppStatus) error {
		status.LatestRevision = name
		return nil
	})
	if err != nil {
		return latest, false, err
	}
	r.emit(app.ID, name, "RevisionCreation", "Creating new revision: "+name, 0)
	if s := app.Template.Scale; s.Min == 0 && len(s.Rules) == 0 && app.Configuration.Ingress == nil {
		r.warn(app.ID, name, "NothingWakesTheApp", fmt.Sprintf("The app has no ingress and no scale rule: after %v without activity it goes to zero "+
			"and nothing starts it again. Set template.scale.minReplicas to 1 or add a rule", s.Cooldown))
	}
	r.cfg.Created(latest)
	return latest, true, nil
}

// configure applies the app's configuration, which the latest revision has already, to the other active revisions. In
// Single mode the previous revision keeps its configuration until it ends.
func (r *Reconciler) configure(ctx context.Context, latest resource.Revision, revisions []resource.Revision) error {
	for i, rev := range revisions {
		if !rev.Active() || rev.Settings == latest.Settings && rev.Serving == latest.Serving {
			continue
		}
		changed, err := r.cfg.Store.Revisions().Observe(ctx, rev.ID, func(_ resource.Revision, status *resource.RevisionStatus) error {
			status.Settings, status.Serving = latest.Settings, latest.Serving
			return nil
		})
		if err != nil {
			return err
		}
		revisions[i] = changed
	}
	return nil
}

func (r *Reconciler) digests(ctx context.Context, keys resource.Keyring, t resource.Template) (map[string]string, error) {
	images := map[string]string{}
	for _, c := range slices.Concat(t.InitContainers, t.Containers) {
		digest, err := r.cfg.Images.Digest(ctx, keys, c.Image)
		if err != nil {
			return nil, fmt.Errorf("image of container %q: %w", c.Name, err)
		}
		images[c.Image] = digest
	}
	return images, nil
}

// note stores the verdict on a revision and emits an event if it changed.
func (r *Reconciler) note(ctx context.Context, app resource.App, rev resource.Revision, v verdict) (resource.Revision, error) {
	if rev.State == v.state && rev.Reason == v.reason && (v.state != resource.RevisionRunning || !rev.Ready.IsZero()) {
		return rev, nil
	}
	now := time.Now().UTC()
	was := rev.State
	rev, err := r.cfg.Store.Revisions().Observe(ctx, rev.ID, func(_ resource.Revision, status *resource.RevisionStatus) error {
		status.State, status.Reason = v.state, v.reason
		switch {
		case v.state == resource.RevisionStopped:
			status.Ready = time.Time{} // the next start is a first one again
		case v.state == resource.RevisionRunning && status.Ready.IsZero():
			status.Ready = now
		}
		return nil
	})
	if err != nil || was == v.state {
		return rev, err
	}
	switch v.state {
	case resource.RevisionRunning:
		r.emit(app.ID, rev.Name(), "RevisionReady", fmt.Sprintf("Successfully provisioned revision %q", rev.Name()), now.Sub(rev.Created))
	case resource.RevisionActivationFailed:
		r.warn(app.ID, rev.Name(), "RevisionActivationFailed", v.reason)
	case resource.RevisionDegraded:
		r.warn(app.ID, rev.Name(), "RevisionDegraded", v.reason)
	}
	return rev, nil
}

// promote makes the newest ready revision among the active ones the latest ready one. In Single mode it gets the app's
// traffic. With rollout replace, Single mode also promotes the latest revision if it is not ready because there is no
// room for it beside the old one; its requests then wait.
func (r *Reconciler) promote(ctx context.Context, app resource.App, latest resource.Revision, revisions []resource.Revision, replicas []resource.Replica) (resource.App, error) {
	next := latest.Name()
	// From the newest to the oldest. A revision that is older than the latest ready one replaces it only if that one is
	// inactive.
	for i := len(revisions) - 1; i >= 0; i-- {
		rev := revisions[i]
		if rev.Active() && (isReady(rev) || rev.Name() == app.LatestReadyRevision) {
			next = rev.Name()
			break
		}
	}
	if app.LatestReadyRevision == next {
		next = latest.Name() // with rollout replace
	}
	if app.LatestReadyRevision == next {
		return app, nil
	}
	if next == latest.Name() && !isReady(latest) {
		if app.Configuration.Mode == resource.Multiple || latest.Settings.Rollout != resource.Replace || app.LatestReadyRevision == "" || !slices.ContainsFunc(replicas, resource.Replica.WaitsForRoom) {
			return app, nil
		}
		r.emit(app.ID, latest.Name(), "RevisionReplacing", fmt.Sprintf("No room for revision %q beside %q: the old one ends first, and requests wait", latest.Name(), app.LatestReadyRevision), 0)
	}
	return r.cfg.Store.Apps().Observe(ctx, app.ID, func(_ resource.App, status *resource.AppStatus) error {
		status.LatestReadyRevision = next
		return nil
	})
}

// appliedLimit bounds the wait until ingresses route by a new table. Normally they do so within a millisecond or two.
// One that hangs must not delay the other apps.
const appliedLimit = 2 * time.Second

// settle completes the app's latest generation as succeeded or failed. left is the number of its replicas. version is
// the table with its routes: when a client learns that a change is done, the routes are in effect. idle is for how long
// the latest revision has made no progress.
func (r *Reconciler) settle(ctx context.Context, app resource.App, latest resource.Revision, revisions []resource.Revision, left int, version uint64, idle time.Duration) error {
	want, why, unhealthy := resource.Succeeded, "", false
	switch {
	case app.Stopped && left > 0:
		return nil // the engine's next change triggers another pass
	case app.Stopped, !latest.Active():
	case isReady(latest):
	case app.Observed == app.Generation:
		return nil
	case app.Configuration.Mode == resource.Multiple && latest.Generation < app.Generation && latest.State == resource.RevisionActivationFailed:
		// Only the configuration was written, and it is in effect.
	case latest.State == resource.RevisionActivationFailed:
		want, why = resource.Failed, latest.Reason
	case latest.Settings.Behaviour == resource.Azure && latest.State == resource.RevisionDegraded:
		unhealthy = true
	default:
		limit, rest := r.cfg.Limits.Stalled, time.Until(app.Modified.Add(provisionLimit))
		want, why = resource.Failed, cmp.Or(latest.Reason, "no replica is ready")
		switch {
		case rest <= 0:
			why = fmt.Sprintf("not ready after %s, and still tried: %s", provisionLimit, why)
		case idle >= limit:
			why = fmt.Sprintf("no progress for %s, and still tried: %s", limit, why)
		default:
			if latest.Settings.Behaviour == resource.Azure {
				limit = r.cfg.Limits.Unhealthy
			}
			r.queue.later(app.ID, min(rest, limit-idle, progressCheck))
			return nil
		}
	}
	if want == resource.Failed {
		why = fmt.Sprintf("Failed to provision revision for container app '%s'. Error details: %s", app.ID.Base(), why)
	}
	if app.Observed == app.Generation && app.Provisioning() == want {
		return nil
	}
	applied, done := context.WithTimeout(ctx, appliedLimit)
	defer done()
	if err := r.cfg.Routes.Applied(applied, version); err != nil {
		r.cfg.Log.Warn("an ingress does not confirm the new routes", "app", app.ID, "version", version)
	}
	settled := false
	_, err := r.cfg.Store.Apps().Observe(ctx, app.ID, func(now resource.App, status *resource.AppStatus) error {
		// If a user wrote the app in the meantime, the next pass settles that write.
		if settled = now.Generation == app.Generation && now.Deleted.IsZero(); settled {
			status.Progress = resource.Progress{Observed: app.Generation, Failure: why}
		}
		return nil
	})
	switch {
	case err != nil || !settled:
		return err
	case app.Stopped:
		r.emit(app.ID, "", "ContainerAppStopped", "Container app is stopped: it has no replicas, and its hosts answer as if it did not exist", 0)
	case unhealthy:
		r.warn(app.ID, latest.Name(), "ContainerAppUnhealthy", fmt.Sprintf("The write has succeeded, as in Azure, but revision %q is not ready: %s",
			latest.Name(), cmp.Or(latest.Reason, "no replica is ready")))
	case want == resource.Succeeded && !app.Served(revisions):
		r.warn(app.ID, latest.Name(), "TrafficToInactiveRevisions", fmt.Sprintf(
			"The write has succeeded, but all traffic leads to inactive revisions (%s), so requests fail. Activate one of them, or change the traffic",
			strings.Join(app.Targets(), ", ")))
	case want == resource.Succeeded:
		r.emit(app.ID, latest.Name(), "ContainerAppReady", ready(app), 0)
	default:
		r.warn(app.ID, latest.Name(), "ContainerAppFailed", why)
	}
	return nil
}

// isReady reports whether a revision can get its app's traffic.
func isReady(rev resource.Revision) bool {
	return !rev.Ready.IsZero() && rev.State != resource.RevisionActivationFailed
}

// ready describes for users where an app's requests go.
func ready(app resource.App) string {
	var to []string
	for _, share := range app.Shares() {
		if share.Weight > 0 {
			to = append(to, fmt.Sprintf("%d%% to revision %q", share.Weight, app.Target(share)))
		}
	}
	return "Container app is ready; its requests go " + strings.Join(to, ", ")
}

// deactivate marks, in Single mode, the revisions that are neither the latest nor serve traffic until the latest is
// ready. In Multiple mode users deactivate revisions.
func (r *Reconciler) deactivate(ctx context.Context, app resource.App, revisions []resource.Revision, latest resource.Revision) ([]resource.Revision, error) {
	if app.Configuration.Mode == resource.Multiple {
		return revisions, nil
	}
	for i, rev := range revisions {
		keep := !rev.Off && (rev.ID.Key() == latest.ID.Key() || rev.Name() == app.LatestReadyRevision)
		if rev.Active() == keep {
			continue
		}
		changed, err := r.cfg.Store.Revisions().Observe(ctx, rev.ID, func(_ resource.Revision, status *resource.RevisionStatus) error {
			// If a user activates it in the meantime, the next pass handles that.
			status.Retired, status.RetiredAt = !keep, rev.Activations
			return nil
		})
		if err != nil {
			return nil, err
		}
		revisions[i] = changed
		if !keep {
			r.emit(app.ID, rev.Name(), "RevisionDeactivating", fmt.Sprintf("Deactivating revision %q; %q has taken its place", rev.Name(), latest.Name()), 0)
		}
	}
	return revisions, nil
}

// fail marks the current generation as failed.
func (r *Reconciler) fail(ctx context.Context, app resource.App, cause error) error {
	if ctx.Err() != nil {
		return cause
	}
	if app.Observed == app.Generation {
		return nil
	}
	_, err := r.cfg.Store.Apps().Observe(ctx, app.ID, func(_ resource.App, status *resource.AppStatus) error {
		status.Progress = resource.Progress{Observed: app.Generation, Failure: cause.Error()}
		return nil
	})
	r.warn(app.ID, "", "ContainerAppFailed", cause.Error())
	return err
}

// delete removes the app from the routes, stops its replicas once their requests have ended or the grace period is
// over, and then removes its documents.
func (r *Reconciler) delete(ctx context.Context, app resource.App, revisions []resource.Revision) error {
	running, err := r.look(ctx, app.ID)
	if err != nil {
		return err
	}
	var all []resource.Replica
	for _, rev := range revisions {
		all = append(all, staying(running[rev.ID.Key()])...)
	}
	r.departures.set(app.ID, all)
	version, err := r.publish(ctx, app.ID)
	if err != nil || !r.table.isOpen() {
		return err
	}
	left := 0
	for _, rev := range revisions {
		r.forget(rev.ID)
		rest := running[rev.ID.Key()]
		left += len(rest)
		r.depart(ctx, rev, staying(rest), version, rev.Template.Grace)
		if err := r.remove(ctx, rev, staying(rest)); err != nil {
			return err
		}
	}
	if left > 0 {
		return nil // the engine's next change triggers another pass
	}
	if err := r.ended(ctx, app.ID, true); err != nil { // of those that have gone since the look began
		return err
	}
	r.departures.set(app.ID, nil)
	for _, rev := range revisions {
		r.forget(rev.ID)
		if err := r.cfg.Runtime.Remove(ctx, rev.ID); err != nil {
			return err
		}
		if err := r.cfg.Store.Revisions().Delete(ctx, rev.ID); err != nil {
			return err
		}
	}
	if err := r.cfg.Forget(app.ID); err != nil {
		return err
	}
	if err := r.cfg.Store.Apps().Delete(ctx, app.ID); err != nil {
		return err
	}
	r.left(app.ID, app.Environment)
	r.engine.forget(app.ID.Key())
	return nil
}

// look reads the replicas of an app from the engine and publishes its routes.
func (r *Reconciler) look(ctx context.Context, app resource.ID) (map[string][]resource.Replica, error) {
	running, err := r.engine.look(ctx, r.cfg.Runtime, app)
	if err == nil {
		r.table.touch(app)
	}
	return running, err
}

// purge deletes the oldest inactive revisions above the limit, except those that traffic refers to.
func (r *Reconciler) purge(ctx context.Context, app resource.App, revisions []resource.Revision, running map[string][]resource.Replica) error {
	named := map[string]bool{app.LatestRevision: true, app.LatestReadyRevision: true}
	for _, share := range app.Shares() {
		named[share.Revision] = true
	}
	limit := resource.DefaultMaxInactive
	if n := app.Configuration.MaxInactive; n != nil {
		limit = *n
	}
	var inactive []resource.ID
	for _, rev := range revisions {
		if !rev.Active() && !named[rev.Name()] && len(running[rev.ID.Key()]) == 0 {
			inactive = append(inactive, rev.ID)
		}
	}
	for len(inactive) > limit {
		if err := r.cfg.Store.Revisions().Delete(ctx, inactive[0]); err != nil {
			return err
		}
		inactive = inactive[1:]
	}
	return nil
}

const eventSource = "ContainerAppController"

func (r *Reconciler) emit(app resource.ID, revision, reason, message string, took time.Duration) {
	r.cfg.Emit(resource.Event{At: time.Now().UTC(), App: app, Revision: revision, Reason: reason, Message: message, Source: eventSource, Duration: took})
}

func (r *Reconciler) emitReplica(rev resource.Revision, replica, reason, message string) {
	r.cfg.Emit(resource.Event{At: time.Now().UTC(), App: rev.App(), Revision: rev.Name(), Replica: replica, Reason: reason, Message: message, Source: eventSource})
}

func (r *Reconciler) warn(app resource.ID, revision, reason, message string) {
	r.cfg.Emit(resource.Event{At: time.Now().UTC(), Warning: true, App: app, Revision: revision, Reason: reason, Message: message, Source: eventSource})
}
