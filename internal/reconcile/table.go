package reconcile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"penstock/internal/link"
	"penstock/internal/resource"
	"penstock/internal/store"
)

// table is the routes of all apps, built from one part for each app and each environment. A part is rebuilt when
// something it depends on has changed: the store reports every write, and a pass over an app reports its replicas. So
// the cost of a pass depends on what changed and not on the number of apps.
//
// Parts are built under mu, from memory only. What is missing (certificates, keys, addresses) is fetched without mu;
// until then the part stays as it was.
type table struct {
	mu     sync.Mutex
	opened bool

	begun        bool // everything has been stale once
	seen         versions
	apps         parts[*appPart]
	environments parts[*environmentPart]
	inhabitants  map[string]int // apps by the key of their environment

	keys      map[string]openedKey         // by the key of the certificate that was uploaded
	issued    map[string]issuedCertificate // certificates that no part has yet, by the key of the environment
	addresses map[string]*addresses        // by the key of the environment
	fetching  map[string]int               // number of publishers that fetch for a part now, by its key

	changed changed
	last    link.Table
	version uint64

	exposing chan struct{}    // holds a token while the ports of replicas are being set
	ports    []netip.AddrPort // ports of the routes in last
	exposed  []netip.AddrPort // nil: not yet set, or setting them failed
}

// versions are those of the store up to which changes are known.
type versions struct{ environments, apps, revisions, certificates uint64 }

// changed marks the lists of the parts that differ from the last table.
type changed struct{ environments, routes, tcp, revisions, certificates bool }

// openedKey is the private key of a certificate.
type openedKey struct {
	sealed []byte // what it was decrypted from
	key    []byte
	err    error
}

type issuedCertificate struct {
	domain      string
	certificate link.Certificate
	renew       time.Time
}

// addresses are those of an environment; they are valid if known is set.
type addresses struct {
	known, failed bool
	prefix        netip.Prefix
	gateway       netip.Addr
}

func newTable() table {
	return table{
		apps: newParts[*appPart](), environments: newParts[*environmentPart](), inhabitants: map[string]int{},
		keys: map[string]openedKey{}, issued: map[string]issuedCertificate{}, addresses: map[string]*addresses{},
		fetching: map[string]int{}, exposing: make(chan struct{}, 1),
	}
}

// open allows the first table to be sent.
func (t *table) open() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.opened = true
}

func (t *table) isOpen() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.opened
}

// touch has the part of an app or an environment rebuilt.
func (t *table) touch(id resource.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if id.Is(resource.TypeEnvironment) {
		t.environments.stale[id.Key()] = true
	} else {
		t.apps.stale[id.Key()] = true
	}
}

// renewal returns when an environment needs its next certificate, or zero if it has none.
func (t *table) renewal(environment resource.ID) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	if part := t.environments.by[environment.Key()]; part != nil {
		return part.renew
	}
	return time.Time{}
}

// publish sends the current routes unless they are unchanged. It returns the version of a table that contains the
// current state of the app or environment looked. The zero ID stands for all of them.
func (r *Reconciler) publish(ctx context.Context, looked resource.ID) (uint64, error) {
	t := &r.table
	if !t.isOpen() {
		return 0, nil
	}
	if !looked.IsZero() {
		t.touch(looked)
	}
	for {
		t.mu.Lock()
		loaded := r.collect()
		var needs []need
		if loaded {
			needs, loaded = r.refresh(looked)
		}
		if loaded && len(needs) == 0 {
			version := r.send()
			t.mu.Unlock()
			return version, r.expose(ctx)
		}
		t.mu.Unlock()
		if !loaded {
			if err := r.load(ctx); err != nil {
				return 0, fmt.Errorf("make routes: %w", err)
			}
			continue
		}
		if err := r.fetch(ctx, needs); err != nil {
			return 0, fmt.Errorf("make routes: %w", err)
		}
	}
}

// load reads the documents from which parts are built into memory.
func (r *Reconciler) load(ctx context.Context) error {
	s := r.cfg.Store
	return errors.Join(s.Environments().Load(ctx), s.Apps().Load(ctx), s.Revisions().Load(ctx), s.Certificates().Load(ctx))
}

// collect marks as stale what was written since the last call. It returns false if the documents are not in memory. The
// caller holds mu.
func (r *Reconciler) collect() bool {
	t, s := &r.table, r.cfg.Store
	environments, atEnvironment, all1 := s.Environments().Memory().Changes(t.seen.environments)
	apps, atApp, all2 := s.Apps().Memory().Changes(t.seen.apps)
	revisions, atRevision, all3 := s.Revisions().Memory().Changes(t.seen.revisions)
	certificates, atCertificate, all4 := s.Certificates().Memory().Changes(t.seen.certificates)
	if !(all1 && all2 && all3 && all4 && t.begun) {
		if !r.collectAll() {
			return false
		}
		t.begun = true
	}
	t.seen = versions{atEnvironment, atApp, atRevision, atCertificate}
	for _, key := range environments {
		t.environments.stale[key] = true
		delete(t.addresses, key) // it may be a new one with the same name
		for app, part := range t.apps.by {
			if part.environment == key {
				t.apps.stale[app] = true
			}
		}
	}
	for _, key := range apps {
		t.apps.stale[key] = true
	}
	for _, key := range revisions {
		t.apps.stale[key[:max(0, strings.LastIndex(key, "/revisions/"))]] = true
	}
	for _, key := range certificates {
		delete(t.keys, key)
		for app, part := range t.apps.by {
			if slices.Contains(part.uploaded, key) {
				t.apps.stale[app] = true
			}
		}
	}
	return true
}

// collectAll marks everything as stale. It returns false if documents are not in memory. The caller holds mu.
func (r *Reconciler) collectAll() bool {
	t, s := &r.table, r.cfg.Store
	environments, loaded1 := s.Environments().Memory().List(store.Scope{})
	apps, loaded2 := s.Apps().Memory().List(store.Scope{})
	_, _, loaded3 := s.Revisions().Memory().Get("")
	_, _, loaded4 := s.Certificates().Memory().Get("")
	if !(loaded1 && loaded2 && loaded3 && loaded4) {
		return false
	}
	for _, e := range environments {
		t.environments.stale[e.ID.Key()] = true
	}
	for _, a := range apps {
		t.apps.stale[a.ID.Key()] = true
	}
	for _, key := range t.environments.keys {
		t.environments.stale[key] = true
	}
	for _, key := range t.apps.keys {
		t.apps.stale[key] = true
	}
	clear(t.addresses)
	clear(t.keys)
	return true
}

// need is something that is required to build a part.
type need struct {
	of  resource.ID
	own bool // publish fails without it
	get func(ctx context.Context) error
}

// refresh builds the stale parts and returns what must be fetched for others, which stay stale. What another publisher
// is already fetching for a part is left to it, unless it is the part of looked. It returns false if documents are not
// in memory. The caller holds mu.
func (r *Reconciler) refresh(looked resource.ID) (needs []need, loaded bool) {
	t := &r.table
	lookedKey := ""
	if !looked.IsZero() {
		lookedKey = looked.Key()
	}
	take := func(key string, id resource.ID, gets []func(context.Context) error) {
		// The first table contains everything.
		own := lookedKey == "" || key == lookedKey || t.version == 0
		if !own && t.fetching[key] > 0 {
			return
		}
		for _, get := range gets {
			t.fetching[key]++
			needs = append(needs, need{id, own, get})
		}
	}
	for key := range t.apps.stale {
		app, exists, known := r.cfg.Store.Apps().Memory().Get(key)
		if !known {
			return r.untake(needs), false
		}
		if !exists {
			delete(t.apps.stale, key)
			t.setApp(key, nil)
			continue
		}
		part, gets, known := r.appPart(app)
		switch {
		case !known:
			return r.untake(needs), false
		case len(gets) > 0:
			take(key, app.ID, gets)
		default:
			delete(t.apps.stale, key)
			t.setApp(key, part)
		}
	}
	for key := range t.environments.stale {
		env, exists, known := r.cfg.Store.Environments().Memory().Get(key)
		if !known {
			return r.untake(needs), false
		}
		if !exists {
			delete(t.environments.stale, key)
			delete(t.addresses, key)
			delete(t.issued, key)
			t.setEnvironment(key, nil)
			continue
		}
		part, get := r.environmentPart(env)
		if get != nil {
			take(key, env.ID, []func(context.Context) error{get})
			continue
		}
		delete(t.issued, key)
		t.setEnvironment(key, part)
		if at := t.addresses[key]; at != nil && at.failed {
			at.known, at.failed = false, false // the next publisher tries again
		} else {
			delete(t.environments.stale, key)
		}
	}
	return needs, true
}

// untake gives up what should have been fetched.
func (r *Reconciler) untake(needs []need) []need {
	for _, n := range needs {
		r.table.fetched(n.of.Key())
	}
	return nil
}

// fetched records that a fetch for a part has ended or was given up. The caller holds mu.
func (t *table) fetched(key string) {
	if t.fetching[key]--; t.fetching[key] == 0 {
		delete(t.fetching, key)
	}
}

// fetch fetches what parts need. If that fails for a part other than the one looked at, the part stays as it was, and
// another pass over it is retried until it succeeds.
func (r *Reconciler) fetch(ctx context.Context, needs []need) error {
	var errs []error
	for _, n := range needs {
		err := n.get(ctx)
		r.table.mu.Lock()
		r.table.fetched(n.of.Key())
		if err != nil && !n.own {
			delete(r.table.apps.stale, n.of.Key())
			delete(r.table.environments.stale, n.of.Key())
		}
		r.table.mu.Unlock()
		switch {
		case err == nil:
		case n.own || ctx.Err() != nil:
			errs = append(errs, err)
		default:
			r.cfg.Log.Warn("cannot update the routes of an app or environment; the old ones stay", "id", n.of, "err", err)
			r.Touch(n.of)
		}
	}
	return errors.Join(errs...)
}

// setApp replaces the part of an app; nil means that there is no such app. Unchanged lists are kept, so that comparing
// tables is cheap. The caller holds mu.
func (t *table) setApp(key string, part *appPart) {
	was, is := t.apps.by[key], part
	if was == nil && is == nil {
		return
	}
	if was == nil {
		was = &appPart{}
	}
	if is == nil {
		is = &appPart{}
	}
	keep(&is.routes, was.routes, &t.changed.routes)
	keep(&is.tcp, was.tcp, &t.changed.tcp)
	keep(&is.revisions, was.revisions, &t.changed.revisions)
	keep(&is.certificates, was.certificates, &t.changed.certificates)
	if was.environment != is.environment {
		t.inhabit(was.environment, -1)
		t.inhabit(is.environment, +1)
	}
	t.apps.set(key, part, part != nil)
}

// inhabit counts the apps of an environment. The caller holds mu.
func (t *table) inhabit(environment string, n int) {
	if environment == "" {
		return
	}
	t.inhabitants[environment] += n
	switch t.inhabitants[environment] {
	case 0:
		delete(t.inhabitants, environment)
		t.changed.environments = true
	case n: // the first
		t.environments.stale[environment] = true
		t.changed.environments = true
	}
}

// setEnvironment replaces the part of an environment; nil means that there is no such environment. The caller holds mu.
func (t *table) setEnvironment(key string, part *environmentPart) {
	was, is := t.environments.by[key], part
	if was == nil {
		was = &environmentPart{}
	}
	if is == nil {
		is = &environmentPart{}
	}
	t.changed.environments = t.changed.environments || was.entry != is.entry
	t.changed.certificates = t.changed.certificates || !sameCertificate(was.certificate, is.certificate)
	t.environments.set(key, part, part != nil)
}

// send builds the table from its parts, publishes it if it differs from the last one, and returns its version. The
// caller holds mu.
func (r *Reconciler) send() uint64 {
	t, now := &r.table, &r.table.last
	if t.changed == (changed{}) && t.version > 0 {
		return t.version
	}
	if t.changed.environments {
		now.Environments = nil
		for _, key := range t.environments.keys {
			// An environment without apps has no replicas that make calls, so it should not use up addresses.
			if part := t.environments.by[key]; part.entry.Domain != "" && t.inhabitants[key] > 0 {
				now.Environments = append(now.Environments, part.entry)
			}
		}
	}
	if t.changed.routes {
		now.Routes = join(t.apps, func(p *appPart) []link.Route { return p.routes })
	}
	if t.changed.tcp {
		now.TCP = join(t.apps, func(p *appPart) []link.TCPRoute { return p.tcp })
	}
	if t.changed.revisions {
		now.Revisions = join(t.apps, func(p *appPart) []link.Revision { return p.revisions })
	}
	if t.changed.certificates {
		now.Certificates = slices.Concat(
			join(t.environments, func(p *environmentPart) []link.Certificate { return p.certificates() }),
			join(t.apps, func(p *appPart) []link.Certificate { return p.certificates }))
	}
	if t.changed.environments || t.changed.tcp || t.version == 0 {
		t.ports = ports(*now)
	}
	t.changed = changed{}
	t.version = r.cfg.Routes.Publish(*now)
	return t.version
}

// expose lets replicas reach the ports of the newest table. Only one caller at a time sets them; callers that find them
// set return at once.
func (r *Reconciler) expose(ctx context.Context) error {
	t := &r.table
	told := func() bool {
		t.mu.Lock()
		defer t.mu.Unlock()
		return t.exposed != nil && slices.Equal(t.exposed, t.ports)
	}
	if told() {
		return nil
	}
	select {
	case t.exposing <- struct{}{}:
		defer func() { <-t.exposing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if told() {
		return nil
	}
	t.mu.Lock()
	ports := t.ports
	t.exposed = nil
	t.mu.Unlock()
	if err := r.cfg.Expose(ports); err != nil {
		return fmt.Errorf("expose ports to replicas: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.exposed = ports
	return nil
}

// ports returns the ports of gateways that a table has routes for, never nil.
func ports(t link.Table) []netip.AddrPort {
	gateways := map[string]netip.Addr{}
	for _, e := range t.Environments {
		gateways[e.ID] = e.Gateway
	}
	all := []netip.AddrPort{}
	for _, route := range t.TCP {
		if gateway := gateways[route.Environment]; gateway.IsValid() {
			all = append(all, netip.AddrPortFrom(gateway, uint16(route.Port)))
		}
	}
	slices.SortFunc(all, netip.AddrPort.Compare)
	return slices.Compact(all)
}

func sameCertificate(a, b link.Certificate) bool {
	return slices.Equal(a.Names, b.Names) && bytes.Equal(a.Cert, b.Cert) && bytes.Equal(a.Key, b.Key)
}
