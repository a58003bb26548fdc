package app_test

import (
	"encoding/json"
	"reflect"
	"testing"

	"penstock/internal/arm/app"
	"penstock/internal/resource"
)

// What was sent as scale rules is what is answered, and what was stored by earlier versions is answered as it was.
func TestScaleRulesRoundTrip(t *testing.T) {
	for name, rules := range map[string]string{
		"http":        `[{"name":"a","http":{"metadata":{"concurrentRequests":"7"}}}]`,
		"http, auth":  `[{"name":"a","http":{"metadata":{"concurrentRequests":"7"},"auth":[{"secretRef":"key","triggerParameter":"password"}],"identity":"system"}}]`,
		"http, empty": `[{"name":"a","http":{"metadata":{}}}]`,
		"tcp":         `[{"name":"a","tcp":{"metadata":{"concurrentConnections":"100"}}}]`,
		"queue":       `[{"name":"a","azureQueue":{"accountName":"acc","queueName":"q","queueLength":5,"auth":[{"secretRef":"key","triggerParameter":"connection"}],"identity":"system"}}]`,
		"queue, less": `[{"name":"a","azureQueue":{"queueName":"q"}}]`,
		"custom":      `[{"name":"a","custom":{"type":"azure-servicebus","metadata":{"queueName":"q","messageCount":"5"},"auth":[{"secretRef":"key","triggerParameter":"connection"}],"identity":"system"}}]`,
		"cron":        `[{"name":"a","custom":{"type":"cron","metadata":{"timezone":"Asia/Seoul","start":"0 8 * * 1-5","end":"0 20 * * 1-5","desiredReplicas":"2"}}}]`,
		"external":    `[{"name":"a","custom":{"type":"external-push","metadata":{"scalerAddress":"[2001:db8::1]:6000","enableTLS":"true","queue":"q"},"auth":[{"secretRef":"key","triggerParameter":"caCert"}]}}]`,
		"an amount":   `[{"name":"a","custom":{"type":"memory","metadata":{"type":"AverageValue","value":"600Mi","containerName":"chat"}}}]`,
		"cpu":         `[{"name":"a","custom":{"type":"cpu","metadata":{"type":"Utilization","value":"70"}}},{"name":"b","http":{"metadata":{"concurrentRequests":"7"}}}]`,
	} {
		t.Run(name, func(t *testing.T) {
			body := `{"properties":{"environmentId":"` + environmentPath + `","configuration":{"secrets":[{"name":"key","value":"v"}]},
				"template":{"containers":[{"name":"chat","image":"i"}],"scale":{"cooldownPeriod":60,"pollingInterval":0,"rules":` + rules + `}}}}`
			a, _, err := app.ReadApp(resource.AppID("s", "g", "chat"), []byte(body))
			if err != nil {
				t.Fatal(err)
			}
			var want any
			if err := json.Unmarshal([]byte(rules), &want); err != nil {
				t.Fatal(err)
			}
			check := func(what string, a resource.App) {
				t.Helper()
				doc := document(t, app.NewContainerApp(a, "penstock.localhost", site))
				if got := dig(doc, "properties", "template", "scale", "rules"); !reflect.DeepEqual(got, want) {
					t.Errorf("%s:\ngot  %v\nwant %v", what, got, want)
				}
				if c, p := dig(doc, "properties", "template", "scale", "cooldownPeriod"), dig(doc, "properties", "template", "scale", "pollingInterval"); c != 60.0 || p != 0.0 {
					t.Errorf("%s: got a cool-down of %v and polling every %v s, want 60 and 0", what, c, p)
				}
			}
			check("as sent", a)
			stored := a
			if err := json.Unmarshal([]byte(`{"Min":0,"Max":10,"Stored":{"cooldownPeriod":60,"pollingInterval":0,"rules":`+rules+`}}`), &stored.Template.Scale); err != nil {
				t.Fatal(err)
			}
			check("as stored by an earlier version", stored)
			if !stored.Template.Equal(a.Template) {
				t.Errorf("the same template stored by an earlier version: want no new revision\n%+v\n%+v", stored.Template.Scale, a.Template.Scale)
			}
		})
	}
}
