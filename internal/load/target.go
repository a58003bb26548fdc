package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
)

// Target is where requests go.
type Target struct {
	Address  string // of the connection: an IP address and a port
	Loopback bool   // this machine and no other
}

// ParseResolve reads "host:port:address", as curl's --resolve does; the address may have a port of its own.
func ParseResolve(text string) (hostPort, address string, err error) {
	fault := fmt.Errorf("want host:port:address such as app.example:80:127.0.0.1, got %q", text)
	host, rest, ok := strings.Cut(text, ":")
	port, to, ok2 := strings.Cut(rest, ":")
	if !ok || !ok2 || host == "" {
		return "", "", fault
	}
	if p, err := netip.ParseAddrPort("127.0.0.1:" + port); err != nil || p.Port() == 0 {
		return "", "", fault
	}
	if ip, err := netip.ParseAddr(strings.Trim(to, "[]")); err == nil {
		return strings.ToLower(host) + ":" + port, net.JoinHostPort(ip.String(), port), nil
	}
	ap, err := netip.ParseAddrPort(to)
	if err != nil || ap.Port() == 0 {
		return "", "", fault
	}
	return strings.ToLower(host) + ":" + port, ap.String(), nil
}

// findTarget resolves the URL's host once, so that no look-up is part of what is measured.
func findTarget(ctx context.Context, u *url.URL, resolve map[string]string) (Target, error) {
	host, port := u.Hostname(), u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "ws": "80", "https": "443", "wss": "443"}[u.Scheme]
	}
	address, ok := resolve[strings.ToLower(host)+":"+port]
	if !ok {
		ip, err := lookUp(ctx, host)
		if err != nil {
			return Target{}, fmt.Errorf("%w: %w", ErrRequest, err)
		}
		address = net.JoinHostPort(ip.String(), port)
	}
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return Target{}, fmt.Errorf("%w: resolve: %w", ErrRequest, err)
	}
	return Target{Address: address, Loopback: ap.Addr().Unmap().IsLoopback()}, nil
}

func lookUp(ctx context.Context, host string) (netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip, nil
	}
	// RFC 6761 6.3: these names are always this machine's, and not every resolver knows.
	if name := strings.ToLower(strings.TrimSuffix(host, ".")); name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return netip.Addr{}, err
	}
	if len(ips) == 0 {
		return netip.Addr{}, errors.New("host " + host + " has no address")
	}
	return ips[0].Unmap(), nil
}
