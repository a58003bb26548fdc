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
		"CORS of no origins and no names": {`"corsPolicy":{"allowedOrigins":["chat.example","https://chat.example/","https://*.example"],"allowedMethods":["GET, PUT"],"exposeHeaders":["a\r\nb"],"maxAge":-1}`, "", []string{
			"ContainerAppInvalidValue configuration.ingress.corsPolicy.allowedOrigins[0]: want an origin as browsers send it",
			"ContainerAppInvalidValue configuration.ingress.corsPolicy.allowedOrigins[1]: want an origin as browsers send it",
			"ContainerAppInvalidValue configuration.ingress.corsPolicy.allowedOrigins[2]: want an origin as browsers send it",
			"ContainerAppInvalidValue configuration.ingress.corsPolicy.allowedMethods[0]: want a name",
			"ContainerAppInvalidValue configuration.ingress.corsPolicy.exposeHeaders[0]: want a name",
			"ContainerAppInvalidValue configuration.ingress.corsPolicy.maxAge: want a number of seconds, got -1"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := app.ReadApp(resource.AppID("s", "g", "chat"), withIngress(test.ingress, test.more))
			invalid, ok := errors.AsType[*resource.InvalidError](err)
			if !ok {
				t.Fatalf("got %v, want %q", err, test.want)
			}
			var got []string
			for _, f := range invalid.Faults {
				got = append(got, f.Code+" "+f.Field+": "+f.Message)
			}
			if len(got) != len(test.want) {
				t.Fatalf("got %q\nwant %q", got, test.want)
			}
			for i := range got {
				if !strings.HasPrefix(got[i], test.want[i]) {
					t.Errorf("got %q\nwant %q", got[i], test.want[i])
				}
			}
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
