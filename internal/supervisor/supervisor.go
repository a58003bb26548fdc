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

// Options configure a Supervisor.
type Options struct {
	Data string // data folder, used by one server at a time; created if missing
	Run  string // parent of the instance's state folder, which holds sockets and pids
	// Listeners are opened by New. Those with relative unix addresses go into the state folder.
	Listeners []Listener
	// Ports lets roles request TCP ports while the server runs. If it is nil, they cannot.
	Ports *Ports
	// CgroupRoot is where cgroups are mounted. If it is empty, the roles stay in the supervisor's cgroup.
	CgroupRoot string
	// Exe is the path of the program that runs roles. It is opened at every start, so a replaced file takes effect.
	Exe string
	// ReadyLimit is how long a new role may take to become ready before a hand-over to it is abandoned.
	ReadyLimit time.Duration
	// StopLimit is how long a role may take to end when the server stops. After that it is killed.
	StopLimit time.Duration
	Log       *slog.Logger
}

// Role describes one kind of child process.
type Role struct {
	Name      string
	Args      []string // arguments of the program; "--inherit=..." is added
	Env       []string // variables added to the supervisor's environment
	Listeners []string // names of the listeners that it inherits
	// Overlap makes a hand-over start the new process first and drain the old one when the new one is ready. Without it
	// the old one ends before the new one starts.
	Overlap bool
	// DrainLimit is how long an old process may drain after a hand-over before it is killed.
	DrainLimit time.Duration
}

// Supervisor holds a data folder and its listeners.
type Supervisor struct {
	opts      Options
	instance  string
	state     string
	lock      *os.File
	pidFile   string // set once this supervisor has the lock
	listeners map[string]*held
	ports     *ports // nil without Options.Ports
	cgroups   *cgroups
}

// New locks the data folder and opens the listeners. It fails if another server uses either.
func New(opts Options) (_ *Supervisor, err error) {
	s := &Supervisor{opts: opts, listeners: map[string]*held{}}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	// Other users may pass through this folder but not list it: container processes with mapped user IDs use files below it.
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
		// The previous server was killed. Its roles got SIGTERM when it died and may need a moment to close their listeners.
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

// abandonedLimit is how long to wait for ports that the roles of a killed server still hold.
const abandonedLimit = 5 * time.Second

// CgroupParent returns the name of an instance's cgroup. The roles are in its child "roles"; the engine uses everything else
// below it.
func CgroupParent(instance string) string { return "penstock-" + instance }

// Instance returns the name of this installation: eight hex digits, chosen at the first start on the data folder.
func (s *Supervisor) Instance() string { return s.instance }

// State returns the folder for files that need not survive a reboot: sockets and pids.
func (s *Supervisor) State() string { return s.state }

// Addr returns the actual address of a listener.
func (s *Supervisor) Addr(name string) net.Addr { return s.listeners[name].addr }

// Close closes the listeners and unlocks the data folder.
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
		_ = os.Remove(s.state) // succeeds only if the folder is empty
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

// Run keeps the roles running until ctx ends or a role asks to stop, then stops them in the given order. Each value from
// upgrade hands every role over to a new process, in the same order. Run calls ready once, when every role has been ready.
// When Run returns, all processes that it started have ended.
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
		// Roles are stopped one after another, so each has its own context.
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
		asking, end := context.WithCancel(context.Background()) // ends after the last role has ended
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

// errStopAsked ends Run when a role asks to stop the server.
var errStopAsked = errors.New("a role asked the server to stop")

// upgrade hands over the roles one by one, and stops at the first failure.
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
