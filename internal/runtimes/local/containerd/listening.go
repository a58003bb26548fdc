package containerd

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"penstock/internal/runtimes/local"
	"penstock/internal/supervisor/port"
)

var _ local.Listener = (*Driver)(nil)

// Listening implements local.Listener: the kernel lists the sockets of a process's network namespace under its /proc.
func (d *Driver) Listening(_ context.Context, id string) ([]netip.AddrPort, error) {
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
	var all []netip.AddrPort
	for _, table := range []string{"tcp", "tcp6"} {
		f, err := os.Open(filepath.Join("/proc", strconv.Itoa(pid), "net", table))
		if err != nil {
			return nil, fmt.Errorf("ports of container %s: %w", id, err)
		}
		all = append(all, listeners(f)...)
		f.Close()
	}
	return all, nil
}

// listeners reads /proc/net/tcp (Linux, Documentation/networking/proc_net_tcp.rst): the local address is the second
// field, "0100007F:1F90", and the state the fourth, where 0A is LISTEN. Those come first (tcp_get_idx in
// net/ipv4/tcp_ipv4.c), and the rest, which may be thousands of connections, is not read.
func listeners(table io.Reader) []netip.AddrPort {
	const listen = "0A"
	var all []netip.AddrPort
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || fields[1] == "local_address" {
			continue
		}
		if fields[3] != listen {
			break
		}
		if addr, err := port.ParseAddr(fields[1]); err == nil {
			all = append(all, addr)
		}
	}
	return all
}
