package server

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"penstock/internal/resource"
	"penstock/internal/store"
)

// scalerDialer connects to external scalers, from control.
//
// A name of an app of the rule's environment leads to the ingress, in the way that replicas of this environment reach
// it: internal apps are found, apps without replicas are woken, and connections are counted. Every other address is
// reached from the machine.
type scalerDialer struct {
	documents *store.Store
	inside    Inside
	machine   *machine
}

func (d scalerDialer) dial(ctx context.Context, environment resource.ID, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	name, app, err := d.app(ctx, environment, host)
	if err != nil {
		return nil, err
	}
	if name == "" {
		return d.outside(ctx, address)
	}
	if d.machine.gateway == nil {
		return nil, fmt.Errorf("app %s: apps have no network of their own with the fake runtime; use the address of a server", name)
	}
	gateway, err := d.machine.gateway(environment)
	if err != nil {
		return nil, err
	}
	var to netip.AddrPort
	exposed := slices.ContainsFunc(app.Configuration.Ingress.ExposedPorts(), func(p resource.ExposedPort) bool { return strconv.Itoa(p.Port) == port })
	switch n, err := strconv.ParseUint(port, 10, 16); {
	case err != nil:
		return nil, err
	case exposed:
		to = netip.AddrPortFrom(gateway, uint16(n)) // redirected, as for replicas
	case n == 80:
		to = netip.AddrPortFrom(d.inside.Host, d.inside.HTTP)
	case n == 443:
		to = netip.AddrPortFrom(d.inside.Host, d.inside.HTTPS)
	default:
		return nil, fmt.Errorf("app %s: want port 80 or 443 for HTTP, or a TCP port that it exposes, got %s", name, port)
	}
	// The ingress knows the environment by this address, which no replica has.
	own := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(gateway, 0))}
	return own.DialContext(ctx, "tcp", to.String())
}

// app returns the name and the app of the environment that a host name belongs to. The name is "" if there is none.
func (d scalerDialer) app(ctx context.Context, environment resource.ID, host string) (name string, app resource.App, err error) {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	env, err := d.documents.Environments().Get(ctx, environment)
	if err != nil {
		return "", app, fmt.Errorf("environment %s: %w", environment.Base(), err)
	}
	name, full := strings.CutSuffix(host, "."+strings.ToLower(env.DefaultDomain))
	if full {
		name = strings.TrimSuffix(name, ".internal")
	}
	apps, err := d.documents.Apps().List(ctx, store.Scope{})
	if err != nil {
		return "", app, err
	}
	base, _, _ := strings.Cut(name, "--") // of a revision, or with a label
	i := slices.IndexFunc(apps, func(a resource.App) bool { return a.Environment.Equal(environment) && a.ID.Base() == base })
	switch {
	case i >= 0:
		return name, apps[i], nil
	case full:
		return name, app, nil // the ingress says that there is none
	}
	return "", app, nil
}

// outside connects to an address that is no app's. Replicas cannot be reached like this, because environments are
// isolated from each other, nor link-local addresses, where machines keep services for themselves.
func (d scalerDialer) outside(ctx context.Context, address string) (net.Conn, error) {
	var replicas netip.Prefix
	if d.machine.addressRange != nil {
		replicas = d.machine.addressRange()
	}
	dialer := net.Dialer{Control: func(_, address string, _ syscall.RawConn) error {
		a, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		switch ip := a.Addr().Unmap(); {
		case replicas.IsValid() && replicas.Contains(ip):
			return fmt.Errorf("%s belongs to replicas; want the name of the app", ip)
		case ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified():
			return fmt.Errorf("want the address of a server, got %s", ip)
		}
		return nil
	}}
	return dialer.DialContext(ctx, "tcp", address)
}

// scalerRoots returns the authorities of the machine and of this server, which external scalers are verified with.
func scalerRoots(authority []byte) *x509.CertPool {
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool() // the machine has none
	}
	roots.AppendCertsFromPEM(authority)
	return roots
}
