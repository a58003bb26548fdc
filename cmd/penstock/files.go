package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// filesWanted is the limit on open files that the server asks for, as systemd does for itself and Docker's unit has it
// (LimitNOFILE, docker.service). The kernel may allow less: fs.nr_open.
const filesWanted = 1 << 20

// raiseFileLimit lets this process and those that it starts have more files and sockets open: each request of a client may
// need two. Beyond the hard limit that takes CAP_SYS_RESOURCE.
func raiseFileLimit() error {
	most := uint64(filesWanted)
	if b, err := os.ReadFile("/proc/sys/fs/nr_open"); err == nil {
		if n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64); err == nil {
			most = min(most, n)
		}
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("limit on open files: %w", err)
	}
	if limit.Cur >= most {
		return nil
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: most, Max: max(limit.Max, most)}); err == nil {
		return nil
	}
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: limit.Max, Max: limit.Max})
}
