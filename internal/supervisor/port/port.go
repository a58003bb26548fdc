// Package port finds out which process listens on a TCP port of this machine.
package port

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Process is one that listens. PID is 0 when the port is held but the process is not to be seen, as without root.
type Process struct {
	PID  int
	Name string
}

func (p Process) String() string {
	if p.PID == 0 {
		return "another process (root can see which)"
	}
	return fmt.Sprintf("%s (pid %d)", p.Name, p.PID)
}

// Holders returns the processes that keep a listener from being opened at address, "127.0.0.1:8080". It is empty when
// the port is free or when /proc does not tell.
func Holders(address string) []Process {
	_, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil
	}
	number, err := strconv.ParseUint(service, 10, 16)
	if err != nil || number == 0 {
		return nil
	}
	var inodes []string
	for range looks {
		if inodes = listeners(uint16(number), wanted(address)); len(inodes) > 0 {
			break
		}
	}
	if len(inodes) == 0 {
		return nil
	}
	if found := owners(inodes); len(found) > 0 {
		return found
	}
	return []Process{{}}
}

// looks is how often the tables are read before a port counts as free. The kernel gives them out in pieces, and leaves sockets
// out when others come or go between two of these.
const looks = 5

// listeners returns the inodes of the sockets that listen on a port at an address that collides with want.
func listeners(number uint16, want netip.Addr) (inodes []string) {
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(table)
		if err != nil {
			continue
		}
		sockets, _ := Listening(f)
		f.Close()
		for _, s := range sockets {
			if s.Addr.Port() == number && collide(want, s.Addr.Addr()) {
				inodes = append(inodes, s.Inode)
			}
		}
	}
	return inodes
}

// wanted is the address part; invalid for every address.
func wanted(address string) netip.Addr {
	host, _, _ := net.SplitHostPort(address)
	if host == "localhost" {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	a, _ := netip.ParseAddr(host)
	return a.Unmap()
}

// collide says whether two listeners on one port get in each other's way.
func collide(a, b netip.Addr) bool {
	b = b.Unmap()
	return !a.IsValid() || a.IsUnspecified() || b.IsUnspecified() || a == b
}

// Socket is one listening socket of /proc/net/tcp.
type Socket struct {
	Addr  netip.AddrPort
	Inode string
}

// listening is the state TCP_LISTEN of include/net/tcp_states.h.
const listening = "0A"

// Listening reads a table in the form of /proc/net/tcp or tcp6 and returns the sockets in state LISTEN.
func Listening(r io.Reader) ([]Socket, error) {
	var found []Socket
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 10 || f[3] != listening {
			continue
		}
		addr, err := ParseAddr(f[1])
		if err != nil {
			return nil, fmt.Errorf("local address %q: %w", f[1], err)
		}
		found = append(found, Socket{Addr: addr, Inode: f[9]})
	}
	return found, lines.Err()
}

// ParseAddr reads an address of these tables, "0100007F:1F90": the address in 32-bit words of the machine's byte order
// (little endian here), the port in network order.
func ParseAddr(s string) (netip.AddrPort, error) {
	host, service, ok := strings.Cut(s, ":")
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("want ADDRESS:PORT in hex")
	}
	raw, err := hex.DecodeString(host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if len(raw) != 4 && len(raw) != 16 {
		return netip.AddrPort{}, fmt.Errorf("want 4 or 16 bytes, got %d", len(raw))
	}
	for i := 0; i < len(raw); i += 4 {
		slices.Reverse(raw[i : i+4])
	}
	number, err := strconv.ParseUint(service, 16, 16)
	if err != nil {
		return netip.AddrPort{}, err
	}
	addr, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(addr.Unmap(), uint16(number)), nil
}

// owners looks for the sockets among the open files of all processes.
func owners(inodes []string) []Process {
	links := make(map[string]bool, len(inodes))
	for _, inode := range inodes {
		links["socket:["+inode+"]"] = true
	}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	var found []Process
	for _, fd := range fds {
		target, err := os.Readlink(fd)
		if err != nil || !links[target] {
			continue
		}
		dir := filepath.Dir(filepath.Dir(fd))
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || slices.ContainsFunc(found, func(p Process) bool { return p.PID == pid }) {
			continue
		}
		name, _ := os.ReadFile(filepath.Join(dir, "comm"))
		found = append(found, Process{PID: pid, Name: strings.TrimSpace(string(name))})
	}
	return found
}
