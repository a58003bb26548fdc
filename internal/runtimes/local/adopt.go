package local

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"penstock/internal/resource"
)

// recordVersion is the version of the format that records are written in.
const recordVersion = 1

// record is what a sandbox carries for the next process of the platform.
type record struct {
	Version  int
	Created  time.Time
	Revision resource.Revision
	Env      []resource.EnvVar `json:",omitempty"`
	// Ports are those that the images of containers EXPOSE, by the container's name. Records of before have none.
	Ports map[string][]int `json:",omitempty"`
	// Once is set for a replica that runs to its end, with what it may take for that.
	Once    bool          `json:",omitempty"`
	Timeout time.Duration `json:",omitempty"`
}

func (k *keeper) record() ([]byte, error) {
	ports := map[string][]int{}
	for _, c := range k.containers {
		if len(c.ports) > 0 {
			ports[c.spec.Name] = c.ports
		}
	}
	return json.Marshal(record{
		Version: recordVersion, Created: k.created, Revision: k.rev, Env: k.env, Ports: ports, Once: k.once.set, Timeout: k.once.timeout,
	})
}

// readRecord accepts only what a keeper can go on from.
func readRecord(b []byte) (record, error) {
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("read record: %w", err)
	}
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
	for _, s := range list {
		r, err := readRecord(s.Record)
		if err != nil {
			e.adoptStray(ctx, s, err)
			continue
		}
		k := newKeeper(e, s.Replica, r.Revision, r.Env, r.Created)
		k.once.set, k.once.timeout = r.Once, r.Timeout
		for _, c := range k.containers {
			c.ports = r.Ports[c.spec.Name]
		}
		k.adopt(s)
		e.mu.Lock()
		e.promised[k.name] = memory(k.rev) // whether it fits or not: it runs
		e.add(k)
		e.mu.Unlock()
		found = append(found, k)
	}
	return found, nil
}

// settleLimit bounds the wait for the probes of what was adopted. One that is ready says so within milliseconds.
const settleLimit = time.Second

// settle waits until it is known which of the adopted replicas are ready, so that nobody takes one that has served all
// the time for one that does not.
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

// adoptStray lists a sandbox that nobody can keep. It may be someone's, so it is left alone.
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
	// Its limit takes memory that nobody else can have.
	u, err := e.cfg.Driver.Usage(ctx, s.Replica)
	if err != nil {
		e.cfg.Log.Warn("the memory of a replica is not known and not counted", "replica", s.Replica, "err", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.strays = append(e.strays, r)
	e.promised[s.Replica] = int64(u.MemoryLimit)
}

// adopt sets a keeper to what the driver has of its replica.
func (k *keeper) adopt(s SandboxStatus) {
	k.admitted, k.adopted, k.touched, k.since = true, true, true, k.created
	k.addr = s.Address
	for _, c := range k.containers {
		for _, have := range s.Containers {
			if have.Name != c.spec.Name {
				continue
			}
			// Whatever is there has to go before the container can be made again.
			c.exists, c.pulled = true, true
			switch have.State {
			case Running:
				c.phase, c.pid, c.started = running, have.PID, have.Started
				k.sandbox = true // what runs has all that it needs
			case Exited:
				c.missed = have.Exit
				c.started = have.Started
			case Created:
			}
			// A container that was made has had its init containers before it.
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

// checkLoop compares the driver's list with what keepers believe, now and then and when asked.
func (e *Engine) checkLoop(ctx context.Context, now <-chan struct{}) {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-now:
		case <-tick.C:
		}
		if err := e.check(ctx); err != nil && ctx.Err() == nil {
			e.cfg.Log.Warn("containers cannot be listed; trying again", "in", checkEvery, "err", err)
		}
	}
}

// check tells keepers of ends that no event told them of.
func (e *Engine) check(ctx context.Context) error {
	// Before the list is made, so that a process that starts meanwhile is not thought to be missing from it.
	e.mu.Lock()
	believed := map[string]int{}
	for _, k := range e.keepers {
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
			if c.State == Running {
				delete(believed, c.ID)
			} else if c.Exit != nil {
				exits[c.ID] = c.Exit
			}
		}
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
