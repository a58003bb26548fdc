package arm_test

import (
	"fmt"
	"strings"
	"testing"

	"penstock/internal/arm"
)

// The machine has an external port once, and an environment each of its ports.
func TestExposedPortsInUse(t *testing.T) {
	s := start(t, func(_ *server, cfg *arm.Config) { cfg.OwnPorts = map[int]string{8443: "--https"} })
	s.environment("e")
	s.environment("f")
	of := func(environment, ingress string) string {
		return `{"location":"koreacentral","properties":{"environmentId":"` + base + `/managedEnvironments/` + environment + `",
			"configuration":{"ingress":{` + ingress + `}},"template":{"containers":[{"name":"c","image":"c:1"}]}}}`
	}
	s.app("redis", of("e", `"external":true,"transport":"tcp","targetPort":6379`))
	s.app("hidden", of("e", `"external":false,"transport":"tcp","targetPort":5432`))
	for name, test := range map[string]struct{ environment, ingress, field, message string }{
		"another app's of the environment": {"e", `"external":false,"transport":"tcp","targetPort":6379`, "targetPort",
			"want a port that no other app of the environment 'e' exposes, got 6379, which the container app 'redis' has"},
		"an internal one": {"e", `"external":true,"transport":"tcp","targetPort":1,"exposedPort":5432`, "exposedPort",
			"want a port that no other app of the environment 'e' exposes, got 5432, which the container app 'hidden' has"},
		"an external one of another environment": {"f", `"external":true,"transport":"tcp","targetPort":6379`, "targetPort",
			"want a port that no other app of this server exposes, got 6379, which the container app 'redis' of the environment 'e' has"},
		"by an additional port": {"f", `"external":true,"targetPort":80,"additionalPortMappings":[{"external":true,"targetPort":1,"exposedPort":6379}]`, "additionalPortMappings[0].exposedPort",
			"got 6379, which the container app 'redis'"},
		"the server's own": {"f", `"external":true,"transport":"tcp","targetPort":1,"exposedPort":8443`, "exposedPort",
			"want a port that is free on this machine, got 8443, on which the server itself listens (--https)"},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.want(400, "PUT", base+"/containerApps/other"+version, of(test.environment, test.ingress))
			if a.get(t, "error", "code") != "ContainerAppExposedPortInUse" || a.get(t, "error", "target") != "configuration.ingress."+test.field ||
				!strings.Contains(fmt.Sprint(a.get(t, "error", "message")), test.message) {
				t.Errorf("got %s, want %s: %s", a.body, test.field, test.message)
			}
		})
	}
	// Inside another environment both are free, and so is the server's own.
	s.app("inside", of("f", `"external":false,"transport":"tcp","targetPort":6379,"additionalPortMappings":[{"external":false,"targetPort":5432},{"external":false,"targetPort":8443}]`))
	// An app may write itself again, and pass its port on when it goes.
	s.app("redis", of("e", `"external":true,"transport":"tcp","targetPort":6379`))
	s.await(s.want(202, "DELETE", base+"/containerApps/redis"+version, ""), "Location")
	s.app("next", of("e", `"external":true,"transport":"tcp","targetPort":6379`))
}

// The port of an app on loopback is one of the machine's. Replicas do not see it.
func TestHostPortsInUse(t *testing.T) {
	s := start(t, func(_ *server, cfg *arm.Config) { cfg.OwnPorts = map[int]string{8443: "--https"} })
	s.environment("e")
	of := func(tag, ingress string) string {
		return `{"location":"koreacentral","tags":{` + tag + `},"properties":{"environmentId":"` + base + `/managedEnvironments/e",
			"configuration":{"ingress":{` + ingress + `}},"template":{"containers":[{"name":"c","image":"c:1"}]}}}`
	}
	const web = `"external":true,"targetPort":80`
	s.app("chat", of(`"penstock.host-port":"9001"`, web))
	s.app("redis", of("", `"external":true,"transport":"tcp","targetPort":6379`))
	s.app("hidden", of("", `"external":false,"transport":"tcp","targetPort":9002`))
	for name, test := range map[string]struct{ tag, ingress, field, message string }{
		"another app's": {`"penstock.host-port":"9001"`, web, "tags.penstock.host-port",
			"want a port that no other app of this server exposes, got 9001, which the container app 'chat' of the environment 'e' has"},
		"a TCP app's": {`"penstock.host-port":"6379"`, web, "tags.penstock.host-port", "got 6379, which the container app 'redis'"},
		"of a TCP app": {"", `"external":true,"transport":"tcp","targetPort":1,"exposedPort":9001`, "configuration.ingress.exposedPort",
			"got 9001, which the container app 'chat' of the environment 'e' has"},
		"the server's own": {`"penstock.host-port":"8443"`, web, "tags.penstock.host-port", "on which the server itself listens (--https)"},
		"no port":          {`"penstock.host-port":"web"`, web, "tags.penstock.host-port", "want none or a port from 1024 to 65535"},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.want(400, "PUT", base+"/containerApps/other"+version, of(test.tag, test.ingress))
			if a.get(t, "error", "target") != test.field || !strings.Contains(fmt.Sprint(a.get(t, "error", "message")), test.message) {
				t.Errorf("got %s, want %s: %s", a.body, test.field, test.message)
			}
		})
	}
	s.app("inside", of(`"penstock.host-port":"9002"`, web+`,"additionalPortMappings":[{"external":false,"targetPort":9001}]`))
	// The tag alone can be written, and is checked too.
	a := s.want(400, "PATCH", base+"/containerApps/inside"+version, `{"tags":{"penstock.host-port":"9001"}}`)
	if a.get(t, "error", "target") != "tags.penstock.host-port" {
		t.Errorf("PATCH: got %s", a.body)
	}
}
