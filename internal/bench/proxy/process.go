package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a proxy or the replica, with its child processes.
type process struct {
	cmd   *exec.Cmd
	input io.Closer // closing it ends a part
	addr  string
}

// startPart runs this program as a part.
func startPart(ctx context.Context, exe, name, replica string) (*process, error) {
	cmd := exec.CommandContext(ctx, exe, "bench", "part", name, replica)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, input: in}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s did not start: %w", name, err), p.stop())
	}
	p.addr = strings.TrimSpace(line)
	return p, nil
}

// stopLimit is how long a process may take to end.
const stopLimit = 10 * time.Second

// stop ends the process and waits for it.
func (p *process) stop() error {
	if p.input != nil {
		p.input.Close()
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails if the process has ended
	kill := time.AfterFunc(stopLimit, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	if err := p.cmd.Wait(); err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() || p.cmd.ProcessState != nil {
			return nil // it ended as it was told to
		}
		return err
	}
	return nil
}

// tree returns the IDs of the process and its descendants.
func (p *process) tree() []int {
	pid := p.cmd.Process.Pid
	pids := []int{pid}
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, path := range threads {
		text, _ := os.ReadFile(path)
		for word := range strings.FieldsSeq(string(text)) {
			if child, err := strconv.Atoi(word); err == nil {
				pids = append(pids, child)
			}
		}
	}
	return pids
}

// tick is the unit of CPU time in /proc/PID/stat: USER_HZ, which is 100 on every Linux that Go runs on (man 5 proc).
const tick = 10 * time.Millisecond

// cpu returns the CPU time that the processes have used.
func (p *process) cpu() (total time.Duration, err error) {
	for _, pid := range p.tree() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, err
		}
		// The second field is the program's name in brackets. It can contain anything, so look for the last closing
		// bracket.
		_, after, _ := strings.Cut(string(text[strings.LastIndexByte(string(text), ')')+1:]), " ")
		fields := strings.Fields(after)
		const user, system = 11, 12 // counted from the field after the name
		if len(fields) <= system {
			return 0, fmt.Errorf("/proc/%d/stat: want more than %d fields, got %q", pid, system, after)
		}
		for _, i := range []int{user, system} {
			n, err := strconv.ParseInt(fields[i], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("/proc/%d/stat: %w", pid, err)
			}
			total += time.Duration(n) * tick
		}
	}
	return total, nil
}

// memory returns the resident memory of the processes.
func (p *process) memory() (total int64, err error) {
	for _, pid := range p.tree() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
		if err != nil {
			return 0, err
		}
		fields := strings.Fields(string(text))
		if len(fields) < 2 {
			return 0, fmt.Errorf("/proc/%d/statm: want more than one field, got %q", pid, text)
		}
		pages, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/%d/statm: %w", pid, err)
		}
		total += pages * int64(os.Getpagesize())
	}
	return total, nil
}

// peak starts to watch the memory. The function that it returns stops that and returns the maximum.
func (p *process) peak() (stop func() int64) {
	done, result := make(chan struct{}), make(chan int64)
	go func() {
		var most int64
		look := time.NewTicker(20 * time.Millisecond)
		defer look.Stop()
		for {
			if n, err := p.memory(); err == nil {
				most = max(most, n)
			}
			select {
			case <-look.C:
			case <-done:
				result <- most
				return
			}
		}
	}()
	return func() int64 { close(done); return <-result }
}
