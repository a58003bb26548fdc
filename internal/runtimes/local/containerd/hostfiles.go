package containerd

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// hostFiles are mounted to /etc of every container.
var hostFiles = []string{"hosts", "hostname", "resolv.conf"}

// hostFilesAt is the folder of a container's run folder in which they are.
const hostFilesAt = "etc"

// bindHostFiles writes the files to the sandbox's disk, so that a container that writes to them fills its own disk, and
// binds them to the run folder, through which the container's root can walk.
func (d *Driver) bindHostFiles(c *container, s *sandbox, hostname string) error {
	dir, at := filepath.Join(d.writable(c), hostFilesAt), c.path(hostFilesAt)
	if err := errors.Join(os.Mkdir(dir, 0o755), os.Mkdir(at, 0o755)); err != nil {
		return err
	}
	for name, text := range map[string]string{
		"hosts":       hosts(s.Address, hostname),
		"hostname":    hostname + "\n",
		"resolv.conf": resolvConf(s.Gateway),
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
		// The files belong to root inside the container. An idmapped mount would do that too, but for each such
		// container containerd runs the shim once more to ask whether it supports them (20 ms).
		if err := os.Chown(path, int(s.FirstID), int(s.FirstID)); err != nil {
			return err
		}
	}
	if err := unix.Mount(dir, at, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s: %w", dir, err)
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
