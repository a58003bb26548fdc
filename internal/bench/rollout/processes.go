package rollout

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Processes finds the processes of a server on this machine by its instance.
type Processes struct {
	Instance string
}

// Replicas returns the pids of all containers, by replica.
func (p Processes) Replicas() (map[string]string, error) {
	found := map[string]string{}
	for _, root := range []string{"/sys/fs/cgroup/memory", "/sys/fs/cgroup"} {
		files, err := filepath.Glob(filepath.Join(root, "penstock-"+p.Instance, "replicas", "*", "*", "cgroup.procs"))
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			pids, err := os.ReadFile(file)
			if err != nil {
				continue // ended meanwhile
			}
			found[filepath.Base(filepath.Dir(filepath.Dir(file)))] = strings.Join(strings.Fields(string(pids)), " ")
		}
	}
	return found, nil
}

// Supervisor returns the pid of the process that holds the listeners.
func (p Processes) Supervisor() (int, error) {
	b, err := os.ReadFile(filepath.Join("/run/penstock", p.Instance, "pid"))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// Role returns the pid of one of the server's roles, the newest when an older one still drains; 0 when there is none.
func (p Processes) Role(name string) (pid int, err error) {
	supervisor, err := p.Supervisor()
	if err != nil {
		return 0, err
	}
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", supervisor))
	if err != nil {
		return 0, err
	}
	if len(lists) == 0 {
		return 0, errors.New("the supervisor does not run")
	}
	var newest uint64 // not the highest pid: they begin again at the lowest
	for _, list := range lists {
		children, err := os.ReadFile(list)
		if err != nil {
			continue // a thread that has ended
		}
		for child := range strings.FieldsSeq(string(children)) {
			command, err := os.ReadFile("/proc/" + child + "/cmdline")
			if err != nil || !strings.Contains(string(command), "role\x00"+name+"\x00") {
				continue
			}
			n, err := strconv.Atoi(child)
			if at := startTime(n); err == nil && at > newest {
				pid, newest = n, at
			}
		}
	}
	return pid, nil
}

// startTime returns when a process was started, in ticks since the machine was; 0 when it has ended.
func startTime(pid int) uint64 {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // the name may have spaces
	fields := strings.Fields(rest)
	if len(fields) < 20 {
		return 0
	}
	ticks, _ := strconv.ParseUint(fields[19], 10, 64) // field 22 of proc_pid_stat(5)
	return ticks
}
