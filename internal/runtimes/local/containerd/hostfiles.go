package containerd

import (
	"fmt"
	"net/netip"
	"os"
)

// hostFiles are mounted to /etc of every container.
var hostFiles = []string{"hosts", "hostname", "resolv.conf"}

func writeHostFiles(c *container, s *sandbox, hostname string) error {
	for name, text := range map[string]string{
		"hosts":       hosts(s.Address, hostname),
		"hostname":    hostname + "\n",
		"resolv.conf": resolvConf(s.Gateway),
	} {
		if err := os.WriteFile(c.path(name), []byte(text), 0o644); err != nil {
			return err
		}
		// The files belong to root inside the container. An idmapped mount would do that too, but for each such
		// container containerd runs the shim once more to ask whether it supports them (20 ms).
		if err := os.Chown(c.path(name), int(s.FirstID), int(s.FirstID)); err != nil {
			return err
		}
	}
	return nil
}

func hosts(address netip.Addr, hostname string) string {
	return fmt.Sprintf("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n%s\t%s\n", address, hostname)
}

// resolvConf returns a resolv.conf with the resolver on the gateway, which forwards to the resolvers of the machine. It
// has no search list: apps have names without a domain, and with a search list such a name would first be looked up in
// a domain of the machine.
func resolvConf(gateway netip.Addr) string {
	return fmt.Sprintf("nameserver %s\noptions timeout:2 attempts:2\n", gateway)
}
