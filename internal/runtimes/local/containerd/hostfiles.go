package containerd

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
)

// hostFiles are bound to /etc of every container.
var hostFiles = []string{"hosts", "hostname", "resolv.conf"}

func writeHostFiles(c *container, s *sandbox, hostname string) error {
	resolv, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		return fmt.Errorf("name servers of the host: %w", err)
	}
	for name, text := range map[string]string{
		"hosts":       hosts(s.Address, hostname),
		"hostname":    hostname + "\n",
		"resolv.conf": reachable(string(resolv)),
	} {
		if err := os.WriteFile(c.path(name), []byte(text), 0o644); err != nil {
			return err
		}
		// They belong to root inside. An idmapped mount would do so too, but containerd runs the shim once more at
		// every create that has one, to ask it whether it can (20 ms).
		if err := os.Chown(c.path(name), int(s.FirstID), int(s.FirstID)); err != nil {
			return err
		}
	}
	return nil
}

func hosts(address netip.Addr, hostname string) string {
	return fmt.Sprintf("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n%s\t%s\n", address, hostname)
}

// reachable leaves out name servers on the host's loopback, which is not the container's, and on IPv6, which it has
// not.
func reachable(resolv string) string {
	var b strings.Builder
	for line := range strings.Lines(resolv) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "nameserver" {
			if a, err := netip.ParseAddr(f[1]); err != nil || a.IsLoopback() || a.Is6() {
				continue
			}
		}
		b.WriteString(line)
	}
	return b.String()
}
