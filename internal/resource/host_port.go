package resource

import (
	"fmt"
	"strconv"
	"strings"
)

// hostPortSetting is the tag, without its prefix, that gives an app an HTTP port of its own on the machine's loopback
// address.
const hostPortSetting = "host-port"

// The ports that the tag can ask for. Those below are for the machine's own services.
const (
	leastHostPort = 1024
	mostHostPort  = 65535
)

// parseHostPort reads the value of the tag; none is 0.
func parseHostPort(value string) (int, error) {
	if strings.EqualFold(value, "none") {
		return 0, nil
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < leastHostPort || n > mostHostPort {
		return 0, fmt.Errorf("want none or a port from %d to %d, got %q", leastHostPort, mostHostPort, value)
	}
	return n, nil
}

// hostPort returns the port that the tags of an app ask for, and the tag as it is written; 0 if there is none.
func hostPort(tags map[string]string) (port int, tag string) {
	for tag, value := range tags {
		if strings.EqualFold(tag, TagPrefix+hostPortSetting) {
			if port, err := parseHostPort(value); err == nil && port != 0 {
				return port, tag
			}
		}
	}
	return 0, ""
}

// HostPort returns the loopback port that leads to this app alone, or 0 if it has none.
func (a App) HostPort() int {
	port, _ := hostPort(a.Tags)
	return port
}

// Ports returns all ports of an app that clients connect to, beside those that all apps share.
func (a App) Ports() []ExposedPort {
	all := a.Configuration.Ingress.ExposedPorts()
	if port, tag := hostPort(a.Tags); port != 0 {
		all = append(all, ExposedPort{Field: "tags." + tag, External: true, Port: port, Host: true})
	}
	return all
}

// validateHostPort checks that an app with a port of its own can be reached over HTTP.
func validateHostPort(a App) []Fault {
	port, tag := hostPort(a.Tags)
	if port == 0 {
		return nil
	}
	bad := func(format string, args ...any) []Fault {
		return []Fault{{codeTag, "tags." + tag, fmt.Sprintf(format, args...)}}
	}
	in := a.Configuration.Ingress
	switch {
	case in == nil:
		return bad("want an app with ingress, as the port leads to its ingress; got one without configuration.ingress")
	case in.Transport == TransportTCP:
		return bad("want an app that speaks HTTP; clients reach this one, whose transport is tcp, at its exposedPort")
	case !in.External:
		return bad("want an app with external ingress; got external: false, which only apps of its environment can reach")
	}
	for _, p := range in.ExposedPorts() {
		if p.External && p.Port == port {
			return bad("want a port that is free, got %d, which is %s of the same app", port, p.Field)
		}
	}
	return nil
}

// validateJobTags refuses the tag for a job, which nobody connects to.
func validateJobTags(tags map[string]string) []Fault {
	if port, tag := hostPort(tags); port != 0 {
		return []Fault{{codeTag, "tags." + tag, "want it on an app; nobody connects to a job"}}
	}
	return nil
}
