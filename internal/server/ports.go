package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"penstock/internal/ingress"
	"penstock/internal/link"
	"penstock/internal/resource"
	"penstock/internal/store"
	"penstock/internal/supervisor"
)

// supervisorPorts has ports opened by the supervisor, on one host.
type supervisorPorts struct {
	client *supervisor.PortsClient
	host   string
}

// NewPorts returns the ports of a host, for which the supervisor is asked at that socket.
func NewPorts(socket, host string) ingress.Ports {
	return &supervisorPorts{supervisor.NewPortsClient(socket), host}
}

func (p *supervisorPorts) Open(ctx context.Context, ports []int) ([]ingress.Port, error) {
	addresses := make([]string, len(ports))
	for i, number := range ports {
		addresses[i] = net.JoinHostPort(p.host, strconv.Itoa(number))
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
		if i < len(ports) { // in the order asked for
			all = append(all, ingress.Port{Number: ports[i], Listener: o.Listener, Fault: o.Fault})
		}
	}
	return all, nil
}

func (p *supervisorPorts) Close() { p.client.Close() }

// tellPorts has each app hear of its ports that cannot be opened, and of those that can be after all.
func tellPorts(ctx context.Context, hub *link.Hub, documents *store.Store, emit func(resource.Event)) error {
	var last []link.Unopened
	for {
		now, err := hub.Unopened(ctx, last)
		if err != nil {
			return nil // ctx has ended
		}
		for _, u := range now {
			if !slices.Contains(last, u) {
				tellPort(u.App, true, "ExposedPortUnavailable", fmt.Sprintf("Nobody outside can connect to port %d: %s", u.Port, u.Reason), emit)
			}
		}
		for _, u := range last {
			still := slices.ContainsFunc(now, func(n link.Unopened) bool { return n.Port == u.Port && n.App == u.App })
			if !still && exposes(ctx, documents, u) {
				tellPort(u.App, false, "ExposedPortOpened", fmt.Sprintf("Port %d is open", u.Port), emit)
			}
		}
		last = now
	}
}

func tellPort(app string, warning bool, reason, message string, emit func(resource.Event)) {
	id, err := resource.ParseID(app)
	if err != nil {
		return
	}
	emit(resource.Event{At: time.Now().UTC(), Warning: warning, App: id, Reason: reason, Message: message, Source: "Ingress"})
}

// exposes says whether an app has the port yet.
func exposes(ctx context.Context, documents *store.Store, u link.Unopened) bool {
	id, err := resource.ParseID(u.App)
	if err != nil {
		return false
	}
	found, err := documents.Apps().Get(ctx, id)
	return err == nil && slices.ContainsFunc(found.Configuration.Ingress.ExposedPorts(), func(p resource.ExposedPort) bool {
		return p.External && p.Port == u.Port
	})
}
