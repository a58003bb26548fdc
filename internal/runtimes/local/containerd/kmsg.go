package containerd

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// killedProcess finds the name of the process that was last killed in a cgroup. It reads the kernel's log. The name is
// "" if the log cannot be read or was overwritten.
func killedProcess(path, cgroup string) string {
	// os.Open is not used: each read returns one record, and a read at the end must not wait for the next one.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	var last string
	record := make([]byte, 8<<10) // the kernel's records are shorter (PRINTK_MESSAGE_MAX)
	for {
		n, err := unix.Read(fd, record)
		if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.EINTR) {
			continue // the next record has been overwritten
		}
		if err != nil || n <= 0 {
			return last
		}
		if name := killedIn(string(record[:n]), cgroup); name != "" {
			last = name
		}
	}
}

// killedIn parses one record. The record that names cgroup and process is
// "6,1234,5678,-;oom-kill:constraint=CONSTRAINT_MEMCG,…,oom_memcg=/penstock/r/c,task_memcg=/penstock/r/c,task=name,pid=7,uid=0"
// (dump_global_header and mem_cgroup_print_oom_context in the kernel's mm/oom_kill.c).
func killedIn(record, cgroup string) string {
	_, text, ok := strings.Cut(record, "oom-kill:")
	if !ok {
		return ""
	}
	text, _, _ = strings.Cut(text, "\n")
	var below bool
	var name string
	for field := range strings.SplitSeq(text, ",") {
		switch key, value, _ := strings.Cut(field, "="); key {
		case "task_memcg":
			below = value == cgroup || strings.HasPrefix(value, cgroup+"/")
		case "task":
			name = value
		}
	}
	if !below {
		return ""
	}
	return name
}
