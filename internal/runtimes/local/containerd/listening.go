package containerd

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"penstock/internal/runtimes/local"
)

var _ local.Listener = (*Driver)(nil)

// Listening implements local.Listener: the kernel lists the sockets of a process's network namespace under its /proc.
func (d *Driver) Listening(_ context.Context, id string) ([]int, error) {
	c, err := d.container(id)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	pid := c.pid
	c.mu.Unlock()
	if pid == 0 {
		return nil, fmt.Errorf("container %s: %w", id, local.ErrGone)
	}
	var ports []int
	for _, table := range []string{"tcp", "tcp6"} {
		text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "net", table))
		if err != nil {
			return nil, fmt.Errorf("ports of container %s: %w", id, err)
		}
		ports = append(ports, listeners(string(text))...)
	}
	slices.Sort(ports)
	return slices.Compact(ports), nil
}

// listeners reads /proc/net/tcp (Linux, Documentation/networking/proc_net_tcp.rst): the local address is the second
// field, "0100007F:1F90", and the state the fourth, where 0A is LISTEN.
func listeners(table string) []int {
	const listen = "0A"
	var ports []int
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) < 4 || fields[3] != listen {
			continue
		}
		_, hex, _ := strings.Cut(fields[1], ":")
		if port, err := strconv.ParseUint(hex, 16, 16); err == nil {
			ports = append(ports, int(port))
		}
	}
	return ports
}
