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

// Listening implements local.Listener. The kernel lists the sockets of a process's network namespace under the
// process's folder in /proc.
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

// listeners parses /proc/net/tcp (Linux, Documentation/networking/proc_net_tcp.rst). The second field is the local
// address, "0100007F:1F90". The fourth is the state, where 0A is LISTEN. Listening sockets come first (tcp_get_idx in
// net/ipv4/tcp_ipv4.c). The rest can be thousands of connections, and is not read.
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
