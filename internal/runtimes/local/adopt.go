package local

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"penstock/internal/resource"
	"penstock/internal/runtimes"
)

// recordVersion is the version of the record format.
const recordVersion = 1

// record is stored with a sandbox for the next process of the platform.
type record struct {
	Version  int
	Created  time.Time
	Revision savedRevision
	Env      []resource.EnvVar `json:",omitempty"`
	// Ports are the ports that the images of the containers EXPOSE, by container name. Records of older versions have
	// none.
	Ports map[string][]int `json:",omitempty"`
	// Standby is set for a sandbox that was created as a standby. It comes with the digests of its containers, by name,
	// except for those with secrets. When one of the containers has started, the sandbox is an ordinary replica.
	Standby bool              `json:",omitempty"`
	Sums    map[string]string `json:",omitempty"`
	// Once is set for a replica that runs to its end. It comes with the time limit.
	Once    bool          `json:",omitempty"`
	Timeout time.Duration `json:",omitempty"`
}

// savedRevision is a revision and its status in one JSON object.
type savedRevision struct {
	resource.Revision
	resource.RevisionStatus
}

func (k *keeper) record(ctx context.Context) ([]byte, error) {
	made := k.rest.is == resource.StandbyCreated
	var sums map[string]string
	if made {
		var err error
		if sums, err = k.sums(ctx); err != nil {
			return nil, err
		}
	}
	ports := map[string][]int{}
	for _, c := range k.containers {
		if len(c.ports) > 0 {
			ports[c.spec.Name] = c.ports
		}
	}
	return json.Marshal(record{
		Version: recordVersion, Created: k.created, Revision: savedRevision{k.rev, k.rev.RevisionStatus}, Env: k.env, Ports: ports, Once: k.once.set, Timeout: k.once.timeout,
		Standby: made, Sums: sums,
	})
}

// readRecord parses a record. It accepts only what a keeper can continue from.
func readRecord(b []byte) (record, error) {
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("read record: %w", err)
	}
	r.Revision.Revision.RevisionStatus = r.Revision.RevisionStatus
	if r.Version != recordVersion {
		return r, fmt.Errorf("read record: want version %d, got %d", recordVersion, r.Version)
	}
	if want := kindOf(r.Once); !r.Revision.ID.Is(want) {
		return r, fmt.Errorf("read record: want a %s, got %q", want, r.Revision.ID)
	}
	if len(r.Revision.Template.Containers) == 0 {
		return r, fmt.Errorf("read record: want containers, got none of %q", r.Revision.ID)
	}
	return r, nil
}

// adopt takes over what an earlier process of the platform left running.
func (e *Engine) adopt(ctx context.Context) (found []*keeper, err error) {
	list, err := e.cfg.Driver.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	known, err := e.adoptLives(list)
	if err != nil {
		return nil, err
	}
	for _, s := range list {
		r, err := readRecord(s.Record)
		if err != nil {
			e.adoptStray(ctx, s, err)
			continue
		}
		k := newKeeper(e, s.Replica, r.Revision.Revision, r.Env, r.Created)
		k.once.set, k.once.timeout = r.Once, r.Timeout
		for _, c := range k.containers {
			c.ports = r.Ports[c.spec.Name]
		}
		k.adopt(s, r.Standby)
		k.adoptLife(known[s.Replica])
		e.mu.Lock()
		useless := k.adoptStandby(s, r)
		if k.rest.kind != resource.StandbyCreated {
			e.promised[k.name] = memory(k.rev) // counted even if it does not fit, because it runs already
		}
		if !k.ending {
			k.view = k.status()
		}
		e.add(k)
		if useless {
			e.stop(k, runtimes.EndScaledIn)
		}
		e.mu.Unlock()
		found = append(found, k)
	}
	return found, nil
}

// settleLimit bounds the wait for the first probes of adopted replicas. The probe of a ready replica succeeds within
// milliseconds.
const settleLimit = time.Second

// settle waits until it is known which of the adopted replicas are ready. Otherwise callers would see replicas that
// have served all the time as not ready.
func (e *Engine) settle(ctx context.Context, found []*keeper) {
	limit := time.NewTimer(settleLimit)
	defer limit.Stop()
	for _, k := range found {
		select {
		case <-k.settled:
		case <-limit.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// adoptStray lists a sandbox that cannot be adopted. It is not removed, because it may belong to someone.
func (e *Engine) adoptStray(ctx context.Context, s SandboxStatus, why error) {
	r := resource.Replica{
		Name:    s.Replica,
		State:   resource.ReplicaUnready,
		Address: s.Address,
		Reason:  fmt.Sprintf("left as it is, because what it belongs to is not known: %v", why),
	}
	for _, c := range s.Containers {
		r.Containers = append(r.Containers, resource.ContainerStatus{
			Name: c.Name, ID: e.shownID(c.ID), Running: c.State == Running, Started: c.Started, PID: c.PID, LastExit: c.Exit,
		})
	}
	e.cfg.Log.Warn("a replica cannot be adopted; it is left running and not restarted", "replica", s.Replica, "err", why)
	e.cfg.Emit(resource.Event{
		At: time.Now(), Warning: true, Replica: s.Replica, Reason: "ReplicaNotAdopted", Source: eventSource,
		Message: fmt.Sprintf("Replica '%s' cannot be adopted and is left as it is: %v", s.Replica, why),
	})
	// Its limit takes memory that is not available to others.
	u, err := e.cfg.Driver.Usage(ctx, s.Replica)
	if err != nil {
		e.cfg.Log.Warn("the memory of a replica is not known and not counted", "replica", s.Replica, "err", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.strays = append(e.strays, r)
	e.promised[s.Replica] = int64(u.MemoryLimit)
}

// adopt sets a keeper to the state that the driver reports for its replica. standby says whether all its containers
// were created at once.
func (k *keeper) adopt(s SandboxStatus, standby bool) {
	k.admitted, k.adopted, k.touched, k.since = true, true, true, k.created
	k.addr = s.Address
	for _, c := range k.containers {
		for _, have := range s.Containers {
			if have.Name != c.spec.Name {
				continue
			}
			// An existing container must be removed before it can be created again.
			c.exists, c.pulled = true, true
			switch have.State {
			case Running:
				c.phase, c.pid, c.started = running, have.PID, have.Started
				k.sandbox = true // a running container has all that it needs
			case Exited:
				c.missed = have.Exit
				c.started = have.Started
			case Created:
			}
			if standby && have.State == Created {
				continue
			}
			// If a container was created or started, the init containers before it have succeeded.
			for _, first := range k.containers {
				first.done = first.done || first.init && !c.init
			}
		}
	}
	for _, c := range k.containers {
		if c.done {
			c.missed = nil
		}
	}
	k.view = k.status()
}

// checkLoop compares the driver's list with the keepers' state, from time to time and on request.
func (e *Engine) checkLoop(ctx context.Context, now <-chan struct{}) {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	began := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-now:
		case <-tick.C:
		}
		if time.Since(began) > standbyClaim {
			e.dropUnclaimed()
		}
		if err := e.check(ctx); err != nil && ctx.Err() == nil {
			e.cfg.Log.Warn("containers cannot be listed; trying again", "in", checkEvery, "err", err)
		}
	}
}

// check reports to keepers the ends for which no event arrived.
func (e *Engine) check(ctx context.Context) error {
	// This is read before the list, so a process that starts in between does not seem to be missing from it.
	e.mu.Lock()
	believed := map[string]int{}
	ahead := map[string]*keeper{} // by container: created and not started
	for _, k := range e.keepers {
		if k.rest.kind == resource.StandbyCreated && k.rest.ready {
			for _, c := range k.containers {
				ahead[c.id] = k
			}
		}
		for i, c := range slices.Concat(k.view.InitContainers, k.view.Containers) {
			if c.Running {
				believed[k.containers[i].id] = c.PID
			}
		}
	}
	e.mu.Unlock()
	list, err := e.cfg.Driver.List(ctx)
	if err != nil {
		return err
	}
	exits := map[string]*resource.Exit{}
	for _, s := range list {
		for _, c := range s.Containers {
			if c.State == Created {
				delete(ahead, c.ID)
			}
			if c.State == Running {
				delete(believed, c.ID)
			} else if c.Exit != nil {
				exits[c.ID] = c.Exit
			}
		}
	}
	for id, k := range ahead {
		k.inbox.put(note{container: id, lost: true})
	}
	for id, pid := range believed {
		exit := exits[id]
		if exit == nil {
			exit = &resource.Exit{Code: -1, At: time.Now()}
		}
		e.dispatch(Event{Container: id, PID: pid, Exit: exit})
	}
	return nil
}
