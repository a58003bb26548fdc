package supervisor

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// spawner starts processes from one thread that lives as long as they do. The kernel sends the parent death signal when the
// thread that forked ends, not when the process ends, and Go can end threads at any time.
type spawner struct{ calls chan func() }

func newSpawner() *spawner {
	s := &spawner{calls: make(chan func())}
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for call := range s.calls {
			call()
		}
	}()
	return s
}

func (s *spawner) close() { close(s.calls) }

func (s *spawner) do(call func()) {
	done := make(chan struct{})
	s.calls <- func() {
		defer close(done)
		call()
	}
	<-done
}

// start runs a new process of the role.
func (s *Supervisor) start(spawn *spawner, r Role) (*process, error) {
	var files []uintptr
	var names []string
	for _, name := range r.Listeners {
		l, ok := s.listeners[name]
		if !ok {
			return nil, fmt.Errorf("no listener %q", name)
		}
		files, names = append(files, uintptr(l.fd)), append(names, name)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	words, tell, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer tell.Close()

	argv := append([]string{os.Args[0]}, r.Args...)
	argv = append(argv, "--inherit="+strings.Join(names, ","))
	attr := &syscall.ProcAttr{
		Env:   environment(r.Env),
		Files: append([]uintptr{null.Fd(), 1, 2}, append(files, tell.Fd())...),
		Sys: &syscall.SysProcAttr{
			// Ctrl-C in a terminal must reach only the supervisor, which then stops the roles in order.
			Setpgid: true,
			// If the supervisor is killed, its roles get SIGTERM, drain and close the listeners.
			Pdeathsig: syscall.SIGTERM,
		},
	}
	began := time.Now()
	var pid int
	spawn.do(func() { pid, err = syscall.ForkExec(s.opts.Exe, argv, attr) })
	if err != nil {
		words.Close()
		return nil, fmt.Errorf("start %s: %w", s.opts.Exe, err)
	}
	handle, err := os.FindProcess(pid)
	if err != nil { // happens only on unsupported systems
		words.Close()
		return nil, fmt.Errorf("find process %d: %w", pid, err)
	}
	if err := s.cgroups.add(r.Name, pid); err != nil {
		s.opts.Log.Warn("role shares the server's cgroup; containers may starve it under load", "role", r.Name, "err", err)
	}
	p := &process{
		pid:     pid,
		handle:  handle,
		began:   began,
		ready:   make(chan struct{}),
		askStop: make(chan struct{}),
		done:    make(chan struct{}),
	}
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		p.hear(words)
	}()
	go p.reap(heard)
	return p, nil
}

// environment returns this process's environment with more variables, which replace existing ones of the same name.
func environment(more []string) []string {
	own := slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.ContainsFunc(more, func(m string) bool { return strings.HasPrefix(m, name+"=") })
	})
	return append(own, more...)
}
