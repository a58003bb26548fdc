package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// Options say what a supervisor holds.
type Options struct {
	Data string // folder that one server owns; made when it is not there
	Run  string // folder below which the state folder of this instance is made, for sockets and pids
	// Listeners are opened by New. Those with relative unix addresses go into the state folder.
	Listeners []Listener
	// Ports lets roles ask for TCP ports while the server runs; nil: none can.
	Ports *Ports
	// CgroupRoot is where cgroups are mounted; empty: the roles stay in the supervisor's own cgroup.
	CgroupRoot string
	// Exe is the program that roles are started from. It is looked up at every start, so a replaced file is used.
	Exe string
	// ReadyLimit is how long a role may take until it is ready before a hand-over to it is given up.
	ReadyLimit time.Duration
	// StopLimit is how long a role may take to end when the server stops, before it is killed.
	StopLimit time.Duration
	Log       *slog.Logger
}

// Role is one kind of child.
type Role struct {
	Name      string
	Args      []string // what the program is called with; "--inherit=..." is added
	Env       []string // added to the supervisor's own
	Listeners []string // names of those it inherits
	// Overlap makes a hand-over start the new process first and drain the old one when the new one is ready. Without it
	// the old one ends before the new one starts.
	Overlap bool
	// DrainLimit is how long an old process may drain after a hand-over before it is killed.
	DrainLimit time.Duration
}

// Supervisor owns a data folder and its listeners.
type Supervisor struct {
	opts      Options
	instance  string
	state     string
	lock      *os.File
	pidFile   string // set once it is ours
	listeners map[string]*held
	ports     *ports // nil without Options.Ports
	cgroups   *cgroups
}

// New takes the data folder and opens the listeners. It fails when another server has either.
func New(opts Options) (_ *Supervisor, err error) {
	s := &Supervisor{opts: opts, listeners: map[string]*held{}}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	// Others may pass through, not list: container processes with ids of their own reach their files below it.
	if err := os.MkdirAll(opts.Data, 0o711); err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	if s.lock, err = lockData(opts.Data); err != nil {
		return nil, err
	}
	if s.instance, err = instance(opts.Data); err != nil {
		return nil, err
	}
	s.state = filepath.Join(opts.Run, s.instance)
	if err := os.MkdirAll(s.state, 0o711); err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	pidFile := filepath.Join(s.state, "pid")
	patience := time.Duration(0)
	if _, err := os.Stat(pidFile); err == nil {
		// The last server did not end in order. Its roles got SIGTERM when it died and may need a moment to let go.
		patience = abandonedLimit
	}
	if err := s.listen(patience); err != nil {
		return nil, err
	}
	if opts.Ports != nil {
		if err := s.openPorts(*opts.Ports); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(pidFile, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil {
		return nil, fmt.Errorf("pid file: %w", err)
	}
	s.pidFile = pidFile
	if opts.CgroupRoot != "" {
		s.cgroups, err = newCgroups(opts.CgroupRoot, CgroupParent(s.instance))
		if err != nil {
			opts.Log.Warn("roles share the server's cgroup; containers may starve them under load", "err", err)
		}
	}
	return s, nil
}

// abandonedLimit bounds the wait for ports that the roles of a killed server still hold.
const abandonedLimit = 5 * time.Second

// CgroupParent names the cgroup of an instance. Roles live in its child "roles"; everything else below it is the
// engine's.
func CgroupParent(instance string) string { return "penstock-" + instance }

// Instance is the name of this installation: eight hex digits, made at the first start on the data folder.
func (s *Supervisor) Instance() string { return s.instance }

// State is the folder for what ends with a reboot: sockets, pids.
func (s *Supervisor) State() string { return s.state }

// Addr is the address that a listener has in fact.
func (s *Supervisor) Addr(name string) net.Addr { return s.listeners[name].addr }

// Close lets go of the listeners and the data folder.
func (s *Supervisor) Close() error {
	var errs []error
	for _, l := range s.listeners {
		errs = append(errs, l.close())
	}
	if s.ports != nil {
		errs = append(errs, s.ports.close())
	}
	if s.pidFile != "" {
		errs = append(errs, os.Remove(s.pidFile))
	}
	if s.state != "" {
		_ = os.Remove(s.state) // when nothing is in it
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

// Run keeps the roles alive until ctx ends or a role asks for the end, then stops them in the order given. Each receive
// from upgrade hands every role over to a new process, also in that order. ready is called once, when every role has
// been ready. When Run returns, all processes it started have ended.
func (s *Supervisor) Run(ctx context.Context, roles []Role, upgrade <-chan struct{}, ready func()) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	spawn := newSpawner()
	defer spawn.close()

	var keepers []*keeper
	var stops []context.CancelFunc
	var ended []chan struct{}
	for _, r := range roles {
		k := &keeper{
			role:       r,
			log:        s.opts.Log.With("role", r.Name),
			start:      func() (*process, error) { return s.start(spawn, r) },
			end:        cancel,
			handover:   make(chan chan error),
			everReady:  make(chan struct{}),
			readyLimit: s.opts.ReadyLimit,
			stopLimit:  s.opts.StopLimit,
		}
		// Roles end one after another, so each has an end of its own.
		kctx, stop := context.WithCancel(context.WithoutCancel(ctx))
		done := make(chan struct{})
		go func() {
			defer close(done)
			k.run(kctx)
		}()
		keepers, stops, ended = append(keepers, k), append(stops, stop), append(ended, done)
	}

	var wg sync.WaitGroup
	if s.ports != nil {
		asking, end := context.WithCancel(context.Background()) // until the last role has ended
		defer wg.Wait()
		defer end()
		wg.Go(func() { s.ports.serve(asking) })
	}
	var readying sync.WaitGroup
	readying.Go(func() {
		for _, k := range keepers {
			select {
			case <-k.everReady:
			case <-ctx.Done():
				return
			}
		}
		ready()
	})
	for ctx.Err() == nil {
		select {
		case <-upgrade:
			s.upgrade(ctx, keepers)
		case <-ctx.Done():
		}
	}
	for i, stop := range stops {
		stop()
		<-ended[i]
	}
	readying.Wait()
	s.cgroups.remove()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, errStopAsked) {
		return err
	}
	return nil
}

// errStopAsked ends Run when a role asked for it.
var errStopAsked = errors.New("a role asked the server to stop")

// upgrade hands every role over, and leaves the rest alone as soon as one fails.
func (s *Supervisor) upgrade(ctx context.Context, keepers []*keeper) {
	began := time.Now()
	s.opts.Log.Info("hand-over begins", "program", s.opts.Exe)
	for _, k := range keepers {
		answer := make(chan error, 1)
		select {
		case k.handover <- answer:
		case <-ctx.Done():
			return
		}
		var err error
		select {
		case err = <-answer:
		case <-ctx.Done(): // the end of the server ends the hand-over too
			return
		}
		if err != nil {
			s.opts.Log.Error("hand-over failed; what was not handed over runs on as it was", "role", k.role.Name, "err", err)
			return
		}
	}
	s.opts.Log.Info("hand-over done", "took", time.Since(began).Round(time.Millisecond))
}
