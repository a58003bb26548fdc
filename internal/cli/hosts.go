package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"penstock/internal/admin/wire"
	"penstock/internal/atomicfile"
)

// hostsPath is the file with names and addresses that every program on the machine reads.
const hostsPath = "/etc/hosts"

// hostsFile is such a file. A server's names are in a marked block of it; everything else stays as it is.
type hostsFile string

func (e *Env) hosts() hostsFile {
	if e.Hosts != "" {
		return hostsFile(e.Hosts)
	}
	return hostsPath
}

// writable returns why the file cannot be changed, or nil.
func (h hostsFile) writable() error {
	f, err := os.OpenFile(string(h), os.O_WRONLY, 0)
	if err != nil {
		return hint(fmt.Errorf("--hosts: %w", err), "run as root, or give the app a port of its own with the tag penstock.host-port")
	}
	return f.Close()
}

// has says whether the file has a block of the server, or of any server if instance is "".
func (h hostsFile) has(instance string) bool {
	b, err := os.ReadFile(string(h))
	return err == nil && bytes.Contains(b, []byte(strings.TrimSpace(hostsBegin(instance))))
}

// set makes the block of a server have these names, and removes the block if there are none.
func (h hostsFile) set(ctx context.Context, instance string, address netip.Addr, names []string) error {
	path, err := filepath.EvalSymlinks(string(h))
	if err != nil {
		return err
	}
	// Two commands at once would otherwise lose each other's names. The file itself is replaced, so its folder is locked.
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	err = poll(ctx, func() (bool, error) {
		err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return false, nil
		}
		return err == nil, err
	})
	if err != nil {
		return fmt.Errorf("lock %s: %w", dir.Name(), err)
	}
	was, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	is, err := hostsWith(was, instance, address, names)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if bytes.Equal(is, was) {
		return nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	err = atomicfile.Write(path, is, info.Mode().Perm())
	if errors.Is(err, syscall.EBUSY) { // in a container the file is a mount, which cannot be replaced
		err = os.WriteFile(path, is, info.Mode().Perm())
	}
	return err
}

func hostsBegin(instance string) string { return "# BEGIN penstock " + instance + "\n" }
func hostsEnd(instance string) string   { return "# END penstock " + instance + "\n" }

// hostsWith returns the content of the file with a new block of the server.
func hostsWith(content []byte, instance string, address netip.Addr, names []string) ([]byte, error) {
	begin, end := []byte(hostsBegin(instance)), []byte(hostsEnd(instance))
	var before, after []byte
	at := lineAt(content, begin)
	if at < 0 {
		if before = content; len(before) > 0 && !bytes.HasSuffix(before, []byte("\n")) {
			before = append(slices.Clone(before), '\n')
		}
	} else {
		until := lineAt(content[at:], end)
		if until < 0 {
			return nil, fmt.Errorf("the line %q is missing; remove the block that begins with %q by hand", bytes.TrimSpace(end), bytes.TrimSpace(begin))
		}
		before, after = content[:at], content[at+until+len(end):]
	}
	if len(names) == 0 {
		if at < 0 {
			return content, nil
		}
		return slices.Concat(before, after), nil
	}
	block := slices.Clone(begin)
	for _, name := range names {
		block = fmt.Appendf(block, "%s %s\n", address, name)
	}
	return slices.Concat(before, block, end, after), nil
}

// lineAt returns where a line begins, or -1.
func lineAt(content, line []byte) int {
	for at := 0; ; {
		i := bytes.Index(content[at:], line)
		if i < 0 {
			return -1
		}
		if at += i; at == 0 || content[at-1] == '\n' {
			return at
		}
		at += len(line)
	}
}

// isLocal says whether the client's server is reached over loopback, so that it is on this machine.
func (c *Client) isLocal() bool {
	host := c.endpoint.Hostname()
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// httpAddress returns the address at which programs on the server's machine reach its apps.
func httpAddress(s *wire.Status) netip.Addr {
	if a, err := netip.ParseAddr(s.HTTPHost); err == nil && !a.IsUnspecified() {
		return a.Unmap()
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

// writeHosts makes the server's block have the names of all its apps.
func (e *Env) writeHosts(ctx context.Context, c *Client, s *scope, status *wire.Status) error {
	docs, err := c.list(ctx, "/subscriptions/"+s.subscription+"/providers/Microsoft.App/containerApps")
	if err != nil {
		return err
	}
	apps, err := decodeAll[appView](docs)
	if err != nil {
		return err
	}
	var names []string
	for _, a := range apps {
		if in := a.Properties.Configuration.Ingress; in != nil && in.External && in.FQDN != "" && !strings.EqualFold(in.Transport, "tcp") {
			names = append(names, in.FQDN)
		}
	}
	slices.Sort(names)
	if err := e.hosts().set(ctx, status.Instance, httpAddress(status), names); err != nil {
		return err
	}
	fmt.Fprintf(e.Stderr, "%s has the names of %d apps; penstock down removes them\n", e.hosts(), len(names))
	return nil
}

// refreshHosts updates the server's block, if there is one. It only warns if that fails, as it is not what was asked for.
func (e *Env) refreshHosts(ctx context.Context, c *Client, s *scope) {
	if !c.isLocal() || !e.hosts().has("") {
		return
	}
	status, err := c.status(ctx)
	if err == nil && e.hosts().has(status.Instance) {
		err = e.writeHosts(ctx, c, s, status)
	}
	if err != nil {
		fmt.Fprintf(e.Stderr, "the names in %s could not be updated: %v\n", e.hosts(), err)
	}
}

// removeHosts removes the block of a server. It only warns if that fails.
func (e *Env) removeHosts(ctx context.Context, instance string) {
	if instance == "" || !e.hosts().has(instance) {
		return
	}
	if err := e.hosts().set(ctx, instance, netip.Addr{}, nil); err != nil {
		fmt.Fprintf(e.Stderr, "the names of apps are still in %s: %v\n", e.hosts(), err)
		return
	}
	fmt.Fprintf(e.Stderr, "removed the names of apps from %s\n", e.hosts())
}
