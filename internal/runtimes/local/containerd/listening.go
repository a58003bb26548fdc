package containerd

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"penstock/internal/runtimes/local"
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
		host, service, _ := strings.Cut(fields[1], ":")
		port, err := strconv.ParseUint(service, 16, 16)
		if err != nil {
			continue
		}
		if addr, ok := kernelAddr(host); ok {
			all = append(all, netip.AddrPortFrom(addr, uint16(port)))
		}
	}
	return all
}

// kernelAddr reads an address that stands in words of 32 bits in the machine's byte order, which is little-endian where
// containers run (amd64, arm64).
func kernelAddr(text string) (netip.Addr, bool) {
	b, err := hex.DecodeString(text)
	if err != nil {
		return netip.Addr{}, false
	}
	for word := range slices.Chunk(b, 4) {
		slices.Reverse(word)
	}
	addr, ok := netip.AddrFromSlice(b)
	return addr.Unmap(), ok
}
