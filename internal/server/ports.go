package server

import (
	"context"
	"errors"
	"net"
	"strconv"

	"penstock/internal/ingress"
	"penstock/internal/supervisor"
)

// supervisorPorts opens ports on one host, and on loopback, through the supervisor.
type supervisorPorts struct {
	client *supervisor.PortsClient
	host   string
}

// NewPorts returns the ports of a host, which the supervisor opens on request through its socket.
func NewPorts(socket, host string) ingress.Ports {
	return &supervisorPorts{supervisor.NewPortsClient(socket), host}
}

func (p *supervisorPorts) Open(ctx context.Context, wanted []ingress.Wanted) ([]ingress.Port, error) {
	addresses := make([]string, len(wanted))
	for i, w := range wanted {
		host := p.host
		if w.Loopback {
			host = supervisor.Loopback
		}
		addresses[i] = net.JoinHostPort(host, strconv.Itoa(w.Number))
	}
	opened, err := p.client.Open(ctx, addresses)
	if errors.Is(err, supervisor.ErrSuperseded) {
		return nil, ingress.ErrLater
	}
	if err != nil {
		return nil, err
	}
	var all []ingress.Port
	for i, o := range opened {
		if i < len(wanted) { // the response has the order of the request
			all = append(all, ingress.Port{Wanted: wanted[i], Listener: o.Listener, Fault: o.Fault})
		}
	}
	return all, nil
}

func (p *supervisorPorts) Close() { p.client.Close() }
