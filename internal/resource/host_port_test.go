package resource_test

import (
	"strings"
	"testing"

	"penstock/internal/resource"
)

func TestHostPort(t *testing.T) {
	ingress := func(change func(*resource.Ingress)) *resource.Ingress {
		in := &resource.Ingress{External: true, TargetPort: 8080, Transport: resource.TransportAuto}
		if change != nil {
			change(in)
		}
		return in
	}
	tests := map[string]struct {
		value string
		in    *resource.Ingress
		port  int
		fault string // "" means that it is accepted
	}{
		"a port":               {"9001", ingress(nil), 9001, ""},
		"none":                 {"none", nil, 0, ""},
		"the lowest":           {"1024", ingress(nil), 1024, ""},
		"a port of the system": {"80", ingress(nil), 0, `want none or a port from 1024 to 65535, got "80"`},
		"no port":              {"http", ingress(nil), 0, `got "http"`},
		"beyond the last":      {"65536", ingress(nil), 0, `got "65536"`},
		"without ingress":      {"9001", nil, 9001, "want an app with ingress"},
		"of TCP":               {"9001", ingress(func(in *resource.Ingress) { in.Transport = resource.TransportTCP }), 9001, "clients reach this one, whose transport is tcp, at its exposedPort"},
		"internal":             {"9001", ingress(func(in *resource.Ingress) { in.External = false }), 9001, "got external: false"},
		"its own TCP port": {"9001", ingress(func(in *resource.Ingress) {
			in.Additional = []resource.PortMapping{{External: true, TargetPort: 1, ExposedPort: 9001}}
		}), 9001, "which is configuration.ingress.additionalPortMappings[0].exposedPort of the same app"},
		"a port inside is another": {"9001", ingress(func(in *resource.Ingress) {
			in.Additional = []resource.PortMapping{{External: false, TargetPort: 1, ExposedPort: 9001}}
		}), 9001, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			a := valid()
			a.Tags = map[string]string{"Penstock.Host-Port": test.value}
			a.Configuration.Ingress = test.in
			if a.HostPort() != test.port {
				t.Errorf("got port %d, want %d", a.HostPort(), test.port)
			}
			faults := resource.ValidateApp(a)
			if _, err := resource.ParseSettings(nil, a.Tags); err != nil {
				faults = append(faults, err.(*resource.InvalidError).Faults...)
			}
			switch {
			case test.fault == "" && len(faults) > 0:
				t.Errorf("got %v, want no fault", faults)
			case test.fault != "" && (len(faults) != 1 || faults[0].Field != "tags.Penstock.Host-Port" || !strings.Contains(faults[0].Message, test.fault)):
				t.Errorf("got %v, want %q", faults, test.fault)
			}
		})
	}
}

// A port leads to one app, and nobody connects to a job.
func TestHostPortIsForAnApp(t *testing.T) {
	if _, err := resource.ParseSettings(map[string]string{"penstock.host-port": "9001"}, nil); err == nil || !strings.Contains(err.Error(), "tags.penstock.host-port: want it on one app") {
		t.Errorf("an environment: got %v", err)
	}
	j := resource.Job{}
	j.Tags = map[string]string{"penstock.host-port": "9001"}
	found := false
	for _, f := range resource.ValidateJob(j) {
		found = found || f.Field == "tags.penstock.host-port"
	}
	if !found {
		t.Error("a job with the tag is taken")
	}
}
