package arm

import (
	"context"
	"fmt"

	"penstock/internal/resource"
	"penstock/internal/store"
)

// codePortInUse is ours, because no public source documents Azure's code.
const codePortInUse = "ContainerAppExposedPortInUse"

// checkPorts refuses ports that are in use. An external port exists once on the machine, for all environments. The TCP ports
// of all apps of an environment are at one address for its replicas. No other write happens meanwhile.
func (c *call) checkPorts(ctx context.Context, wanted resource.App) error {
	ports := wanted.Ports()
	if len(ports) == 0 {
		return nil
	}
	apps, err := c.Store.Apps().List(ctx, store.Scope{})
	if err != nil {
		return err
	}
	var faults []resource.Fault
	fault := func(p resource.ExposedPort, format string, args ...any) {
		faults = append(faults, resource.Fault{Code: codePortInUse, Field: p.Field, Message: fmt.Sprintf(format, args...)})
	}
	for _, p := range ports {
		if setting := c.OwnPorts[p.Port]; p.External && setting != "" {
			fault(p, "want a port that is free on this machine, got %d, on which the server itself listens (%s)", p.Port, setting)
		}
	}
	for _, other := range apps {
		if other.ID.Key() == wanted.ID.Key() {
			continue
		}
		neighbours := other.Environment.Key() == wanted.Environment.Key()
		for _, has := range other.Ports() {
			for _, p := range ports {
				switch {
				case p.Port != has.Port:
				case neighbours && !p.Host && !has.Host:
					fault(p, "want a port that no other app of the environment '%s' exposes, got %d, which the container app '%s' has", wanted.Environment.Base(), p.Port, other.ID.Base())
				case p.External && has.External:
					fault(p, "want a port that no other app of this server exposes, got %d, which the container app '%s' of the environment '%s' has", p.Port, other.ID.Base(), other.Environment.Base())
				}
			}
		}
	}
	if len(faults) > 0 {
		return &resource.InvalidError{Faults: faults}
	}
	return nil
}
