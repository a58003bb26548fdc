package server

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"slices"
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
	app, err := d.app(ctx, environment, host)
	if err != nil {
		return nil, err
	}
	if app == "" {
		return d.outside(ctx, address)
	}
	if d.machine.gateway == nil {
		return nil, fmt.Errorf("app %s: apps have no network of their own with the fake runtime; use the address of a server", app)
	}
	to := netip.AddrPortFrom(d.inside.Host, d.inside.HTTP)
	switch port {
	case "80":
	case "443":
		to = netip.AddrPortFrom(d.inside.Host, d.inside.HTTPS)
	default:
		return nil, fmt.Errorf("app %s: want port 80 or 443, where its ingress is, got %s", app, port)
	}
	gateway, err := d.machine.gateway(environment)
	if err != nil {
		return nil, err
	}
	// The ingress knows the environment by this address, which no replica has.
	own := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(gateway, 0))}
	return own.DialContext(ctx, "tcp", to.String())
}

// app returns the app of the environment that a host name belongs to, or "".
func (d scalerDialer) app(ctx context.Context, environment resource.ID, host string) (string, error) {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	env, err := d.documents.Environments().Get(ctx, environment)
	if err != nil {
		return "", fmt.Errorf("environment %s: %w", environment.Base(), err)
	}
	if name, ok := strings.CutSuffix(host, "."+strings.ToLower(env.DefaultDomain)); ok && env.DefaultDomain != "" {
		return strings.TrimSuffix(name, ".internal"), nil
	}
	if strings.Contains(host, ".") {
		return "", nil
	}
	apps, err := d.documents.Apps().List(ctx, store.Scope{})
	if err != nil {
		return "", err
	}
	name, _, _ := strings.Cut(host, "--") // of a revision, or with a label
	if slices.ContainsFunc(apps, func(a resource.App) bool { return a.Environment.Equal(environment) && a.ID.Base() == name }) {
		return host, nil
	}
	return "", nil
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
