package containerd

import (
	"fmt"
	"net/netip"
	"os"
)

// hostFiles are bound to /etc of every container.
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

// resolvConf leads to the resolver on the gateway, which asks those of the machine. There is no search list: apps have
// names without a domain, and one of the machine's domains would be asked for those first.
func resolvConf(gateway netip.Addr) string {
	return fmt.Sprintf("nameserver %s\noptions timeout:2 attempts:2\n", gateway)
}
