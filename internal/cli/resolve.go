package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"penstock/internal/admin/wire"
)

// resolveLimit is how long to wait for the machine's resolver. A program that has to wait longer does not find the name
// either.
const resolveLimit = 3 * time.Second

// resolves says whether programs on this machine find the address of a host by its name. known is false if that cannot be
// found out.
func (e *Env) resolves(ctx context.Context, host string) (yes, known bool) {
	if e.Resolves != nil {
		return e.Resolves(host), true
	}
	ctx, cancel := context.WithTimeout(ctx, resolveLimit)
	defer cancel()
	sources := []string{""} // all of them
	if strings.HasSuffix(host, ".localhost") {
		// Such a name must not be sent to other machines (RFC 6761 section 6.3).
		switched, err := os.ReadFile("/etc/nsswitch.conf")
		if err != nil {
			return false, false
		}
		servers, err := os.ReadFile("/etc/resolv.conf")
		if err != nil {
			return false, false
		}
		sources = localSources(switched, servers)
	}
	for _, source := range sources {
		args := []string{"ahosts", host}
		if source != "" {
			args = append([]string{"-s", "hosts:" + source}, args...)
		}
		out, err := exec.CommandContext(ctx, "getent", args...).Output()
		if err == nil && len(bytes.TrimSpace(out)) > 0 {
			return true, true
		}
		if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
			return false, false // there is no getent
		}
	}
	return false, true
}

// localSources returns the sources of host names of nsswitch.conf(5) that send no question to another machine. servers is
// the content of resolv.conf(5).
func localSources(switched, servers []byte) (sources []string) {
	dns := true // without a name server it is on this machine
	for field := range configLines(servers) {
		if len(field) > 1 && field[0] == "nameserver" {
			a, err := netip.ParseAddr(field[1])
			dns = dns && err == nil && a.IsLoopback()
		}
	}
	for field := range configLines(switched) {
		if field[0] != "hosts:" {
			continue
		}
		inAction := false
		for _, source := range field[1:] {
			switch {
			case strings.HasPrefix(source, "["), inAction:
				inAction = !strings.HasSuffix(source, "]")
			case source == "dns" && !dns, strings.HasPrefix(source, "mdns"), source == "wins":
			default:
				sources = append(sources, source)
			}
		}
	}
	return sources
}

// configLines yields the fields of each line that has any. Comments begin with #.
func configLines(content []byte) func(func([]string) bool) {
	return func(yield func([]string) bool) {
		lines := bufio.NewScanner(bytes.NewReader(content))
		for lines.Scan() {
			text, _, _ := strings.Cut(lines.Text(), "#")
			if fields := strings.Fields(text); len(fields) > 0 && !yield(fields) {
				return
			}
		}
	}
}

// adviseName says on out how programs reach an app whose name this machine does not resolve.
func (e *Env) adviseName(ctx context.Context, out io.Writer, c *Client, a *appView, status *wire.Status) {
	in, own := a.Properties.Configuration.Ingress, a.hostURL()
	if in == nil || in.FQDN == "" || !in.External || strings.EqualFold(in.Transport, "tcp") {
		return
	}
	yes, known := e.resolves(ctx, in.FQDN)
	found := yes || !known
	switch {
	case own != "" && c.isLocal() && found:
		fmt.Fprintf(out, "on this machine also %s\n", own)
	case own != "" && c.isLocal():
		fmt.Fprintf(out, "on this machine also %s, for programs that do not find %s (Python, Node and most others)\n", own, in.FQDN)
	case found:
	case !c.isLocal():
		fmt.Fprintf(out, "%s does not resolve on this machine; add it to your DNS, or to %s with the server's address\n", in.FQDN, e.hosts())
	default:
		find := "programs on this machine do not find it"
		if strings.HasSuffix(in.FQDN, ".localhost") {
			find = "curl and browsers find it anyway, but Python, Node and most other programs do not"
		}
		fmt.Fprintf(out, `%s does not resolve on this machine: %s. What works:
  the tag penstock.host-port: "9001" in the manifest, which gives the app http://127.0.0.1:9001
  penstock up --hosts, which writes the names of all apps to %s until penstock down
`, in.FQDN, find, e.hosts())
	}
}
