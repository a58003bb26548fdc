package app_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"penstock/internal/arm/app"
	"penstock/internal/resource"
)

// withIngress is a document of an app with that ingress, and more beside it in its configuration.
func withIngress(ingress, more string) []byte {
	return []byte(`{"location":"x","properties":{"environmentId":"` + environmentPath + `","configuration":{"ingress":{"targetPort":80,` + ingress + `}` + more + `},
		"template":{"containers":[{"name":"chat","image":"chat:1"}]}}}`)
}

// What an app asks of requests comes back as it was written.
func TestIngressPolicy(t *testing.T) {
	const asked = `"ipSecurityRestrictions":[{"name":"office","description":"the office","ipAddressRange":"192.0.2.0/24","action":"Allow"},{"name":"me","ipAddressRange":"198.51.100.7","action":"Allow"}],
		"stickySessions":{"affinity":"sticky"},"clientCertificateMode":"require",
		"corsPolicy":{"allowedOrigins":["https://chat.example"],"allowedMethods":["GET"],"allowedHeaders":["x-key"],"exposeHeaders":["x-total"],"maxAge":60,"allowCredentials":true}`
	a, notes, err := app.ReadApp(resource.AppID("s", "g", "chat"), withIngress(asked, ""))
	if err != nil || len(notes) > 0 {
		t.Fatal(err, notes)
	}
	text, err := json.Marshal(app.NewContainerApp(a, "penstock.localhost", site))
	if err != nil {
		t.Fatal(err)
	}
	got := document(t, json.RawMessage(text))["properties"].(map[string]any)["configuration"].(map[string]any)["ingress"].(map[string]any)
	for name, want := range document(t, json.RawMessage("{"+asked+"}")) {
		if diff := cmp.Diff(want, got[name]); diff != "" {
			t.Errorf("%s (-written +read):\n%s", name, diff)
		}
	}
}

func TestIngressPolicyRefused(t *testing.T) {
	for name, test := range map[string]struct {
		ingress, more string
		want          []string
	}{
		"rules of both kinds": {`"ipSecurityRestrictions":[{"name":"a","ipAddressRange":"192.0.2.0/24","action":"Allow"},{"name":"b","ipAddressRange":"192.0.2.0/24","action":"Deny"}]`, "",
			[]string{"ContainerAppInvalidValue configuration.ingress.ipSecurityRestrictions[1].action: want one action in all rules"}},
		"a rule of nothing": {`"ipSecurityRestrictions":[{}]`, "", []string{
			"ContainerAppInvalidValue configuration.ingress.ipSecurityRestrictions[0].action: want Allow or Deny, got nothing",
			"ContainerAppInvalidValue configuration.ingress.ipSecurityRestrictions[0].name: want a name, got none",
			`ContainerAppInvalidValue configuration.ingress.ipSecurityRestrictions[0].ipAddressRange: want a range of IPv4 addresses such as 192.0.2.0/24, got ""`}},
		"a rule of IPv6": {`"ipSecurityRestrictions":[{"name":"a","ipAddressRange":"2001:db8::/32","action":"Deny"}]`, "",
			[]string{"ContainerAppInvalidValue configuration.ingress.ipSecurityRestrictions[0].ipAddressRange: want a range of IPv4 addresses"}},
		"another action": {`"ipSecurityRestrictions":[{"name":"a","ipAddressRange":"192.0.2.1","action":"Log"}]`, "",
			[]string{`ContainerAppInvalidValue configuration.ingress.ipSecurityRestrictions[0].action: want Allow or Deny, got "Log"`}},
		"sticky with several revisions": {`"stickySessions":{"affinity":"sticky"}`, `,"activeRevisionsMode":"Multiple"`,
			[]string{"ContainerAppInvalidIngressStickySessionRevisionMode configuration.ingress.stickySessions.affinity: sticky sessions need activeRevisionsMode Single"}},
		"another affinity": {`"stickySessions":{"affinity":"ip"}`, "", []string{`ContainerAppInvalidValue configuration.ingress.stickySessions.affinity: want sticky or none, got "ip"`}},
		"another mode":     {`"clientCertificateMode":"optional"`, "", []string{"ContainerAppInvalidValue configuration.ingress.clientCertificateMode: want accept or require or ignore"}},
		"another scheme":   {`"targetPortHttpScheme":"tls"`, "", []string{`ContainerAppInvalidValue configuration.ingress.targetPortHttpScheme: want http or https, got "tls"`}},
		"CORS for nobody":  {`"corsPolicy":{"allowedMethods":["GET"]}`, "", []string{"ContainerAppInvalidValue configuration.ingress.corsPolicy.allowedOrigins: want at least one origin"}},
		"CORS of no origins and no names": {`"corsPolicy":{"allowedOrigins":["chat.example","https://chat.example/","https://a.*.example"],"allowedMethods":["GET, PUT"],"exposeHeaders":["a\r\nb"],"maxAge":-1}`, "", []string{
			"ContainerAppInvalidValue configuration.ingress.corsPolicy.allowedOrigins[0]: want an origin as browsers send it",
			"ContainerAppInvalidValue configuration.ingress.corsPolicy.allowedOrigins[1]: want an origin as browsers send it",
			"ContainerAppInvalidValue configuration.ingress.corsPolicy.allowedOrigins[2]: want an origin as browsers send it",
			"ContainerAppInvalidValue configuration.ingress.corsPolicy.allowedMethods[0]: want a name",
			"ContainerAppInvalidValue configuration.ingress.corsPolicy.exposeHeaders[0]: want a name",
			"ContainerAppInvalidValue configuration.ingress.corsPolicy.maxAge: want a number of seconds, got -1"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := app.ReadApp(resource.AppID("s", "g", "chat"), withIngress(test.ingress, test.more))
			wantFaults(t, err, test.want)
		})
	}
}

func TestIngressOfAnEnvironmentRefused(t *testing.T) {
	for ingress, want := range map[string]string{
		`{"requestIdleTimeout":3}`:  "properties.ingressConfiguration.requestIdleTimeout: want 4 to 30 minutes, got 3",
		`{"requestIdleTimeout":31}`: "properties.ingressConfiguration.requestIdleTimeout: want 4 to 30 minutes, got 31",
		`{"headerCountLimit":0}`:    "properties.ingressConfiguration.headerCountLimit: want 1 or more, got 0",
	} {
		_, _, err := app.ReadEnvironment(resource.EnvironmentID("s", "g", "e"), []byte(`{"location":"x","properties":{"ingressConfiguration":`+ingress+`}}`))
		invalid, ok := errors.AsType[*resource.InvalidError](err)
		if !ok || len(invalid.Faults) != 1 || invalid.Faults[0].Code != "ManagedEnvironmentInvalidValue" || invalid.Faults[0].Field+": "+invalid.Faults[0].Message != want {
			t.Errorf("%s: got %v, want %s", ingress, err, want)
		}
	}
}

// TCP ports come back as they were written.
func TestTCPPorts(t *testing.T) {
	for name, test := range map[string]struct {
		asked string
		want  []resource.ExposedPort
	}{
		"as the target port": {`"external":true,"transport":"tcp","targetPort":6379,"exposedPort":0`,
			[]resource.ExposedPort{{Field: "configuration.ingress.targetPort", External: true, Port: 6379}}},
		"another": {`"external":false,"transport":"Tcp","targetPort":443,"exposedPort":8443`,
			[]resource.ExposedPort{{Field: "configuration.ingress.exposedPort", Port: 8443}}},
		"more, beside HTTP": {`"external":true,"transport":"Http","targetPort":80,"additionalPortMappings":[{"external":true,"targetPort":9000},{"external":false,"targetPort":9001,"exposedPort":9443}]`,
			[]resource.ExposedPort{
				{Field: "configuration.ingress.additionalPortMappings[0].targetPort", External: true, Port: 9000, TargetPort: 9000},
				{Field: "configuration.ingress.additionalPortMappings[1].exposedPort", Port: 9443, TargetPort: 9001},
			}},
		"with what TCP apps may say": {`"transport":"Tcp","targetPort":6379,"allowInsecure":false,"stickySessions":{"affinity":"none"},"clientCertificateMode":"ignore","ipSecurityRestrictions":[{"name":"office","ipAddressRange":"192.0.2.0/24","action":"Allow"}]`,
			[]resource.ExposedPort{{Field: "configuration.ingress.targetPort", Port: 6379}}},
	} {
		t.Run(name, func(t *testing.T) {
			body := strings.Replace(string(withIngress(test.asked, "")), `"targetPort":80,`, "", 1)
			a, notes, err := app.ReadApp(resource.AppID("s", "g", "chat"), []byte(body))
			if err != nil || len(notes) > 0 {
				t.Fatal(err, notes)
			}
			if diff := cmp.Diff(test.want, a.Configuration.Ingress.ExposedPorts()); diff != "" {
				t.Errorf("ports (-want +got):\n%s", diff)
			}
			got := document(t, app.NewContainerApp(a, "penstock.localhost", site))["properties"].(map[string]any)["configuration"].(map[string]any)["ingress"].(map[string]any)
			for name, want := range document(t, json.RawMessage("{"+test.asked+"}")) {
				if s, ok := want.(string); ok {
					want = strings.ToUpper(s[:1]) + s[1:]
				}
				if name == "clientCertificateMode" {
					want = "ignore"
				}
				if diff := cmp.Diff(want, got[name]); diff != "" {
					t.Errorf("%s (-written +read):\n%s", name, diff)
				}
			}
		})
	}
}

func TestTCPPortsRefused(t *testing.T) {
	const in = "ContainerAppInvalidValue configuration.ingress."
	for name, test := range map[string]struct {
		ingress, more string
		want          []string
	}{
		"an exposed port of an HTTP app": {`"exposedPort":8081`, "", []string{in + "exposedPort: want 0 or transport tcp, got 8081"}},
		"a port of HTTP":                 {`"transport":"tcp"`, "", []string{in + "targetPort: want another port to be exposed than 80, which HTTP apps have; set exposedPort"}},
		"a port of HTTPS":                {`"transport":"tcp","exposedPort":443`, "", []string{in + "exposedPort: want another port to be exposed than 443, which HTTP apps have"}},
		"one of Azure's own":             {`"transport":"tcp","exposedPort":36985`, "", []string{in + "exposedPort: want another port to be exposed than 36985, which Azure keeps"}},
		"the resolver's":                 {`"transport":"tcp","exposedPort":53`, "", []string{in + "exposedPort: want another port to be exposed than 53, which the environment's resolver has"}},
		"no port":                        {`"transport":"tcp","exposedPort":65536`, "", []string{in + "exposedPort: want 1 to 65535, got 65536"}},
		"less than none":                 {`"transport":"tcp","exposedPort":-1`, "", []string{in + "exposedPort: want 1 to 65535, got -1"}},
		"what is about requests": {`"external":true,"transport":"tcp","exposedPort":81,"allowInsecure":true,"customDomains":[{"name":"a.example.com","bindingType":"Disabled"}],"stickySessions":{"affinity":"sticky"},"clientCertificateMode":"accept","corsPolicy":{"allowedOrigins":["*"]}`, "", []string{
			in + "allowInsecure: want false with transport tcp, got true",
			in + "customDomains: want none with transport tcp, got 1",
			in + "corsPolicy: want none with transport tcp, got one",
			in + "stickySessions.affinity: want none with transport tcp, got sticky",
			in + "clientCertificateMode: want ignore with transport tcp, got accept"}},
		"a port to be found out": {`"transport":"tcp","targetPort":0`, "", []string{in + "targetPort: want 1 to 65535 with transport tcp, got 0"}},
		"one of several to be found out": {`"targetPort":0,"additionalPortMappings":[{"targetPort":9000}]`, "",
			[]string{in + "targetPort: want 1 to 65535 beside additionalPortMappings, got 0"}},
		"TLS to replicas": {`"transport":"tcp","exposedPort":81,"targetPortHttpScheme":"https"`, "", []string{in + "targetPortHttpScheme: want http with transport tcp, got https"}},
		"a label": {`"transport":"tcp","exposedPort":81,"traffic":[{"latestRevision":true,"weight":100,"label":"blue"}]`, `,"activeRevisionsMode":"Multiple"`,
			[]string{in + `traffic[0].label: want no label with transport tcp, got "blue"`}},
		"too many": {`"additionalPortMappings":[{"targetPort":1},{"targetPort":2},{"targetPort":3},{"targetPort":4},{"targetPort":5},{"targetPort":6}]`, "",
			[]string{in + "additionalPortMappings: want at most 5 ports, got 6"}},
		"an additional port without a port": {`"additionalPortMappings":[{"external":false}]`, "", []string{in + "additionalPortMappings[0].targetPort: want 1 to 65535, got 0"}},
		"an external one of an internal app": {`"additionalPortMappings":[{"external":true,"targetPort":9000}]`, "",
			[]string{in + "additionalPortMappings[0].external: want false in an app that is internal itself, got true"}},
		"one target port twice": {`"additionalPortMappings":[{"targetPort":9000},{"targetPort":9000,"exposedPort":9001},{"targetPort":80,"exposedPort":9002}]`, "", []string{
			in + "additionalPortMappings[1].targetPort: want a port of its own, got 9000, which is configuration.ingress.additionalPortMappings[0].targetPort too",
			in + "additionalPortMappings[2].targetPort: want a port of its own, got 80, which is configuration.ingress.targetPort too"}},
		"one exposed port twice": {`"transport":"tcp","exposedPort":9000,"additionalPortMappings":[{"targetPort":9000}]`, "",
			[]string{in + "additionalPortMappings[0].targetPort: want a port of its own to be exposed, got 9000, which configuration.ingress.exposedPort has"}},
		"a field of its own": {`"additionalPortMappings":[{"targetPort":9000,"protocol":"udp"}]`, "", []string{"ContainerAppInvalidSchema configuration.ingress.additionalPortMappings[0].protocol"}},
	} {
		t.Run(name, func(t *testing.T) {
			body := string(withIngress(test.ingress, test.more))
			if strings.Contains(test.ingress, `"targetPort":0`) {
				body = strings.Replace(body, `"targetPort":80,`, "", 1)
			}
			_, _, err := app.ReadApp(resource.AppID("s", "g", "chat"), []byte(body))
			wantFaults(t, err, test.want)
		})
	}
}

// wantFaults wants an error that tells these faults, which are given by how they begin.
func wantFaults(t *testing.T, err error, want []string) {
	t.Helper()
	invalid, ok := errors.AsType[*resource.InvalidError](err)
	if !ok {
		t.Fatalf("got %v, want %q", err, want)
	}
	var got []string
	for _, f := range invalid.Faults {
		got = append(got, f.Code+" "+f.Field+": "+f.Message)
	}
	if len(got) != len(want) {
		t.Fatalf("got %q\nwant %q", got, want)
	}
	for i := range got {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("got %q\nwant %q", got[i], want[i])
		}
	}
}
