package app_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"penstock/internal/arm/app"
	"penstock/internal/resource"
)

func TestReadAppFillsDefaults(t *testing.T) {
	again, notes, err := read(t, resource.TypeApp, minimal(t, resource.TypeApp))
	if err != nil || len(notes) > 0 {
		t.Fatalf("got %v, notes %q", err, notes)
	}
	for _, test := range []struct {
		path []any
		want any
	}{
		{[]any{"scale", "minReplicas"}, nil},
		{[]any{"scale", "maxReplicas"}, 10.0},
		{[]any{"scale", "cooldownPeriod"}, 300.0},
		{[]any{"scale", "pollingInterval"}, 30.0},
		{[]any{"terminationGracePeriodSeconds"}, 30.0},
		{[]any{"containers", 0, "resources", "cpu"}, 0.25},
		{[]any{"containers", 0, "resources", "memory"}, "0.5Gi"},
		{[]any{"containers", 0, "resources", "ephemeralStorage"}, "1Gi"},
		{[]any{"initContainers"}, nil},
		{[]any{"volumes"}, nil},
	} {
		if got := dig(again, slices.Concat([]any{"properties", "template"}, test.path)...); got != test.want {
			t.Errorf("%v: got %v, want %v", test.path, got, test.want)
		}
	}
}

func TestReadAppRefuses(t *testing.T) {
	body := func(template string) string {
		return `{"properties":{"environmentId":"` + environmentPath + `","template":` + template + `}}`
	}
	container := func(c string) string {
		return body(`{"containers":[{"name":"chat","image":"chat:1"` + c + `}]}`)
	}
	probe := func(p string) string {
		return container(`,"probes":[{"type":"Liveness","tcpSocket":{"port":80}` + p + `}]`)
	}
	scale := func(s string) string { return body(`{"containers":[{"name":"chat","image":"i"}],"scale":{` + s + `}}`) }
	// What is found is written as `code field: beginning of the message`.
	tests := map[string]struct {
		body string
		want []string
	}{
		"nothing":                {``, []string{"InvalidRequestContent : the body ends in the middle"}},
		"no JSON":                {`{"a"`, []string{"InvalidRequestContent : the body ends in the middle"}},
		"no JSON at all":         {`hello`, []string{"InvalidRequestContent : the body is not valid JSON at byte"}},
		"more than JSON":         {`{} {}`, []string{"InvalidRequestContent : want one JSON value"}},
		"a list":                 {`[]`, []string{"InvalidRequestContent : want a resource as a JSON object, got a list"}},
		"bytes that are no text": {"{\"a\":\"\xff\"}", []string{"InvalidRequestContent : the body is not UTF-8"}},
		"nesting without end":    {strings.Repeat(`{"a":`, 10000), []string{"InvalidRequestContent : the body is not valid JSON at byte"}},
		"an empty object":        {`{}`, []string{"ContainerAppInvalidValue properties.environmentId: want the ID", "ContainerAppInvalidValue template: want the containers"}},
		"unknown fields everywhere": {
			`{"foo":1,"properties":{"environmentId":"` + environmentPath + `","bar":2,"configuration":{"ingres":{}},"template":{"containers":[{"name":"chat","image":"i","command":null,"commands":[]}]}}}`,
			[]string{
				"ContainerAppInvalidSchema foo: unknown field; want one of identity, location, name, properties, tags",
				"ContainerAppInvalidSchema properties.bar: unknown field; want one of configuration, environmentId,",
				"ContainerAppInvalidSchema configuration.ingres: unknown field",
				"ContainerAppInvalidSchema template.containers[0].commands: unknown field",
			},
		},
		"a field twice": {`{"location":"a","Location":"b","properties":{"environmentId":"` + environmentPath + `","template":{"containers":[{"name":"chat","image":"i"}]}}}`,
			[]string{"ContainerAppInvalidSchema location: is given twice"}},
		"another name":          {strings.Replace(container(``), `{`, `{"name":"other",`, 1), []string{`InvalidRequestContent name: want "chat" as in the address, got "other"`}},
		"no ID":                 {`{"properties":{"environmentId":"e","template":{"containers":[{"name":"chat","image":"i"}]}}}`, []string{"LinkedInvalidPropertyId properties.environmentId: Property id 'e' at path 'properties.environmentId' is invalid."}},
		"ID of an app":          {`{"properties":{"managedEnvironmentId":"/subscriptions/s/resourceGroups/g/providers/Microsoft.App/containerApps/a","template":{"containers":[{"name":"chat","image":"i"}]}}}`, []string{"LinkedInvalidPropertyId properties.managedEnvironmentId: Property id"}},
		"two environments":      {`{"properties":{"environmentId":"` + environmentPath + `","managedEnvironmentId":"` + environmentPath + `2","template":{"containers":[{"name":"chat","image":"i"}]}}}`, []string{"ContainerAppInvalidValue properties.managedEnvironmentId: want the same as environmentId"}},
		"a cpu value of 0":      {container(`,"resources":{"cpu":0,"memory":"0.5Gi"}`), []string{"ContainerAppInvalidCpuResource template.containers[0].resources.cpu: want more than 0, got 0"}},
		"cpu of three decimals": {container(`,"resources":{"cpu":0.255,"memory":"0.5Gi"}`), []string{"ContainerAppInvalidCpuResource template.containers[0].resources.cpu: want at most two decimals, got 0.255"}},
		"cpu in words":          {container(`,"resources":{"cpu":"half","memory":"1Gi"}`), []string{`ContainerAppInvalidSchema template.containers[0].resources.cpu: want a number, got "half"`}},
		"cpu in hexadecimal":    {container(`,"resources":{"cpu":"0x1","memory":"1Gi"}`), []string{`ContainerAppInvalidSchema template.containers[0].resources.cpu: want a number, got "0x1"`}},
		"memory in GB":          {container(`,"resources":{"cpu":0.5,"memory":"1GB"}`), []string{`ContainerAppInvalidValue template.containers[0].resources.memory: want a number of at most two decimals with Gi or Mi`}},
		"no memory":             {container(`,"resources":{"cpu":0.5,"memory":"0Gi"}`), []string{`ContainerAppInvalidValue template.containers[0].resources.memory: want more than 0, got "0Gi"`}},
		"no pair":               {container(`,"resources":{"cpu":0.25,"memory":"4Gi"}`), []string{"ContainerAppInvalidResourceTotal template.containers: The total requested CPU and memory resources for this application (CPU: 0.25, memory: 4.0) is invalid."}},
		"a bad pair beside a bad name": {body(`{"containers":[{"name":"Chat","image":"i","resources":{"cpu":0.25,"memory":"4Gi"}}]}`), []string{
			"ContainerAppInvalidValue template.containers[0].name: want 1 to 63", "ContainerAppInvalidResourceTotal template.containers: The total",
		}},
		"the pair is not judged when a part is wrong": {container(`,"resources":{"cpu":0.25,"memory":4}`), []string{"ContainerAppInvalidSchema template.containers[0].resources.memory: want text, got 4"}},
		"a probe without a type":                      {container(`,"probes":[{"tcpSocket":{"port":80}}]`), []string{"ContainerAppInvalidValue template.containers[0].probes[0].type: want Startup, Readiness or Liveness, got nothing"}},
		"a probe of another type":                     {container(`,"probes":[{"type":"Exec","tcpSocket":{"port":80}}]`), []string{`ContainerAppInvalidValue template.containers[0].probes[0].type: want Startup or Readiness or Liveness, got "Exec"`}},
		"a probe's grace of 0":                        {probe(`,"terminationGracePeriodSeconds":0`), []string{"ContainerAppInvalidValue template.containers[0].probes[0].terminationGracePeriodSeconds: want 1 to 3600, got 0"}},
		"a probe's port by name":                      {container(`,"probes":[{"type":"Liveness","tcpSocket":{"port":"http"}}]`), []string{`ContainerAppInvalidSchema template.containers[0].probes[0].tcpSocket.port: want a whole number, got "http"`}},
		"an endless period":                           {probe(`,"periodSeconds":9223372036854775807`), []string{"ContainerAppInvalidValue template.containers[0].probes[0].periodSeconds: want 1 to 240"}},
		"a number out of range":                       {probe(`,"periodSeconds":1e400`), []string{"ContainerAppInvalidSchema template.containers[0].probes[0].periodSeconds: want a whole number"}},
		"minReplicas -1":                              {scale(`"minReplicas":-1`), []string{"ContainerAppInvalidValue template.scale.minReplicas: want 0 to 1000, got -1"}},
		"a cool-down below 0":                         {scale(`"cooldownPeriod":-1`), []string{"ContainerAppInvalidValue template.scale.cooldownPeriod: want 0 to 86400 seconds, got -1"}},
		"minReplicas 1001":                            {scale(`"minReplicas":1001,"maxReplicas":1001`), []string{"ContainerAppInvalidValue template.scale.minReplicas: want 0 to 1000, got 1001", "ContainerAppInvalidValue template.scale.maxReplicas: want 1 to 1000, got 1001"}},
		"maxReplicas 0":                               {scale(`"maxReplicas":0`), []string{"ContainerAppInvalidValue template.scale.maxReplicas: want 1 to 1000, got 0"}},
		"minReplicas of half":                         {scale(`"minReplicas":0.5`), []string{"ContainerAppInvalidSchema template.scale.minReplicas: "}},
		"more minimum than maximum":                   {scale(`"minReplicas":5,"maxReplicas":4`), []string{"ContainerAppInvalidValue template.scale.maxReplicas: want at least minReplicas, which is 5, got 4"}},
		"an endless cool-down":                        {scale(`"cooldownPeriod":86401`), []string{"ContainerAppInvalidValue template.scale.cooldownPeriod: want 0 to 86400 seconds, got 86401"}},
		"polling below 0":                             {scale(`"pollingInterval":-1`), []string{"ContainerAppInvalidValue template.scale.pollingInterval: want 0 to 86400 seconds, got -1"}},
		"endless polling":                             {scale(`"pollingInterval":86401`), []string{"ContainerAppInvalidValue template.scale.pollingInterval: want 0 to 86400 seconds, got 86401"}},
		"a rule's name with a line":                   {scale(`"rules":[{"name":"a\nb","http":{}}]`), []string{`ContainerAppInvalidValue template.scale.rules[0].name: want at most 256 bytes without line breaks and control characters, got "a\nb"`}},
		"a long name of a rule":                       {scale(`"rules":[{"name":"` + strings.Repeat("a", 257) + `","http":{}}]`), []string{"ContainerAppInvalidValue template.scale.rules[0].name: want at most 256 bytes"}},
		"cpu 0":                                       {scale(`"rules":[{"name":"a","custom":{"type":"cpu","metadata":{"value":"0"}}}]`), []string{"ContainerAppInvalidValue template.scale.rules[0].custom.metadata.value: want a whole number from 1"}},
		"cpu -5":                                      {scale(`"rules":[{"name":"a","custom":{"type":"cpu","metadata":{"value":"-5"}}}]`), []string{"ContainerAppInvalidValue template.scale.rules[0].custom.metadata.value: want a whole number from 1"}},
		"cpu 70.5":                                    {scale(`"rules":[{"name":"a","custom":{"type":"cpu","metadata":{"value":"70.5"}}}]`), []string{"ContainerAppInvalidValue template.scale.rules[0].custom.metadata.value: want a whole number from 1"}},
		"cpu much":                                    {scale(`"rules":[{"name":"a","custom":{"type":"cpu","metadata":{"value":"much"}}}]`), []string{"ContainerAppInvalidValue template.scale.rules[0].custom.metadata.value: want a whole number from 1"}},
		"a target beyond an integer":                  {scale(`"rules":[{"name":"a","http":{"metadata":{"concurrentRequests":"2147483648"}}}]`), []string{"ContainerAppInvalidValue template.scale.rules[0].http.metadata.concurrentRequests: want a whole number from 1"}},
		"cron that never begins":                      {scale(`"rules":[{"name":"a","custom":{"type":"cron","metadata":{"timezone":"UTC","start":"0 0 30 2 *","end":"0 9 * * *","desiredReplicas":"2"}}}]`), []string{`ContainerAppInvalidValue template.scale.rules[0].custom.metadata.start: "0 0 30 2 *" never comes: no such month has such a day`}},
		"cron that wants -1":                          {scale(`"rules":[{"name":"a","custom":{"type":"cron","metadata":{"timezone":"UTC","start":"0 8 * * *","end":"0 9 * * *","desiredReplicas":"-1"}}}]`), []string{"ContainerAppInvalidValue template.scale.rules[0].custom.metadata.desiredReplicas: want a whole number from 1"}},
		"cron that wants half":                        {scale(`"rules":[{"name":"a","custom":{"type":"cron","metadata":{"timezone":"UTC","start":"0 8 * * *","end":"0 9 * * *","desiredReplicas":"1.5"}}}]`), []string{"ContainerAppInvalidValue template.scale.rules[0].custom.metadata.desiredReplicas: want a whole number from 1"}},
		"a rule of two kinds":                         {scale(`"rules":[{"name":"a","http":{},"tcp":{}}]`), []string{"ContainerAppInvalidValue template.scale.rules[0]: want one of http, tcp, custom and azureQueue, got 2 of them"}},
		"a rule without a name":                       {scale(`"rules":[{"http":{}}]`), []string{"ContainerAppInvalidValue template.scale.rules[0].name: want a name"}},
		"two rules of a name":                         {scale(`"rules":[{"name":"a","http":{}},{"name":"a","http":{}}]`), []string{`ContainerAppInvalidValue template.scale.rules[1].name: "a" is the name of another rule already`}},
		"a scaler without type":                       {scale(`"rules":[{"name":"a","custom":{}}]`), []string{"ContainerAppInvalidValue template.scale.rules[0].custom.type: want the name of a KEDA scaler"}},
		"concurrentRequests abc": {scale(`"rules":[{"name":"a","http":{"metadata":{"concurrentRequests":"abc"}}}]`),
			[]string{"ContainerAppInvalidValue template.scale.rules[0].http.metadata.concurrentRequests: want a whole number from 1 as text, as in \"10\", got \"abc\""}},
		"concurrentRequests 0":      {scale(`"rules":[{"name":"a","http":{"metadata":{"concurrentRequests":"0"}}}]`), []string{"ContainerAppInvalidValue template.scale.rules[0].http.metadata.concurrentRequests: want a whole number from 1"}},
		"concurrentRequests -5":     {scale(`"rules":[{"name":"a","http":{"metadata":{"concurrentRequests":"-5"}}}]`), []string{"ContainerAppInvalidValue template.scale.rules[0].http.metadata.concurrentRequests: want a whole number from 1"}},
		"concurrentConnections 1.5": {scale(`"rules":[{"name":"a","tcp":{"metadata":{"concurrentConnections":"1.5"}}}]`), []string{"ContainerAppInvalidValue template.scale.rules[0].tcp.metadata.concurrentConnections: want a whole number from 1"}},
		"misspelt metadata":         {scale(`"rules":[{"name":"a","http":{"metadata":{"concurrentRequest":"5"}}}]`), []string{"ContainerAppInvalidValue template.scale.rules[0].http.metadata.concurrentRequest: unknown name; want concurrentRequests"}},
		"queueLength -1":            {scale(`"rules":[{"name":"a","azureQueue":{"queueName":"q","queueLength":-1}}]`), []string{"ContainerAppInvalidValue template.scale.rules[0].azureQueue.queueLength: want a whole number from 1, got -1"}},
		"no queueName":              {scale(`"rules":[{"name":"a","azureQueue":{"queueLength":5}}]`), []string{"ContainerAppInvalidValue template.scale.rules[0].azureQueue.queueName: want the name of a queue, got nothing"}},
		"a custom queueLength of 0": {scale(`"rules":[{"name":"a","custom":{"type":"azure-queue","metadata":{"queueName":"q","queueLength":"0"}}}]`), []string{"ContainerAppInvalidValue template.scale.rules[0].custom.metadata.queueLength: want a whole number from 1"}},
		"cpu without a value":       {scale(`"rules":[{"name":"a","custom":{"type":"cpu","metadata":{"type":"Utilization"}}}]`), []string{"ContainerAppInvalidValue template.scale.rules[0].custom.metadata.value: want a whole number from 1"}},
		"memory of another type":    {scale(`"rules":[{"name":"a","custom":{"type":"memory","metadata":{"type":"Value","value":"1"}}}]`), []string{"ContainerAppInvalidValue template.scale.rules[0].custom.metadata.type: want Utilization or AverageValue, got \"Value\""}},
		"memory by an average":      {scale(`"rules":[{"name":"a","custom":{"type":"memory","metadata":{"type":"AverageValue","value":"1GB"}}}]`), []string{"ContainerAppInvalidValue template.scale.rules[0].custom.metadata.value: want a number with one of G, Gi"}},
		"cpu by an average of 0":    {scale(`"rules":[{"name":"a","custom":{"type":"cpu","metadata":{"type":"AverageValue","value":"0m"}}}]`), []string{`ContainerAppInvalidValue template.scale.rules[0].custom.metadata.value: want a quantity above 0, got "0m"`}},
		"cpu of another container":  {scale(`"rules":[{"name":"a","custom":{"type":"cpu","metadata":{"value":"70","containerName":"side"}}}]`), []string{"ContainerAppInvalidValue template.scale.rules[0].custom.metadata.containerName: want nothing, or the name of the only container"}},
		"a secret that is not there": {scale(`"rules":[{"name":"a","custom":{"type":"redis","metadata":{},"auth":[{"secretRef":"key","triggerParameter":"password"}]}}]`),
			[]string{"ContainerAppSecretRefNotFound template.scale.rules[0].custom.auth[0].secretRef: SecretRef 'key' defined for scale rule 'a' not found."}},
		"auth that says nothing": {scale(`"rules":[{"name":"a","http":{"auth":[{}]}}]`), []string{
			"ContainerAppInvalidValue template.scale.rules[0].http.auth[0].secretRef: want the name of a secret", "ContainerAppInvalidValue template.scale.rules[0].http.auth[0].triggerParameter: want the name of the scaler's parameter"}},
		"an empty window": {scale(`"rules":[{"name":"a","custom":{"type":"cron","metadata":{"timezone":"Asia/Seoul","start":"31 * * * *","end":"31 * * * * ","desiredReplicas":"2"}}}]`),
			[]string{"ContainerAppInvalidValue template.scale.rules[0].custom.metadata.end: want another time than start, got \"31 * * * *\" for both"}},
		"a window that wants none": {scale(`"rules":[{"name":"a","custom":{"type":"cron","metadata":{"timezone":"UTC","start":"0 0 * * 6","end":"0 0 * * 7","desiredReplicas":"0"}}}]`), []string{
			"ContainerAppInvalidValue template.scale.rules[0].custom.metadata.end: day of the week: want 0 (Sunday) to 6",
			"ContainerAppInvalidValue template.scale.rules[0].custom.metadata.desiredReplicas: want at least 1, got 0: a cron rule asks for at least"}},
		"cron without anything": {scale(`"rules":[{"name":"a","custom":{"type":"cron"}}]`), []string{
			"ContainerAppInvalidValue template.scale.rules[0].custom.metadata.start: want a schedule", "ContainerAppInvalidValue template.scale.rules[0].custom.metadata.end: want a schedule",
			"ContainerAppInvalidValue template.scale.rules[0].custom.metadata.timezone: want the name of a time zone, as in Asia/Seoul or UTC, got nothing", "ContainerAppInvalidValue template.scale.rules[0].custom.metadata.desiredReplicas: want a whole number"}},
		"no such time zone": {scale(`"rules":[{"name":"a","custom":{"type":"cron","metadata":{"timezone":"Asia/Soul","start":"0 8 * * *","end":"0 9 * * *","desiredReplicas":"2"}}}]`),
			[]string{"ContainerAppInvalidValue template.scale.rules[0].custom.metadata.timezone: want the name of a time zone, as in Asia/Seoul or UTC, got \"Asia/Soul\""}},
		"an external scaler without an address": {scale(`"rules":[{"name":"a","custom":{"type":"external"}}]`),
			[]string{"ContainerAppInvalidValue template.scale.rules[0].custom.metadata.scalerAddress: want the host and port of a gRPC server, as in scaler:80 or 192.0.2.7:6000, got \"\""}},
		"an external scaler that is a file": {scale(`"rules":[{"name":"a","custom":{"type":"external-push","metadata":{"scalerAddress":"unix:///run/x.sock"}}}]`),
			[]string{"ContainerAppInvalidValue template.scale.rules[0].custom.metadata.scalerAddress: want the host and port of a gRPC server, as in scaler:80 or 192.0.2.7:6000, got \"unix:///run/x.sock\""}},
		"metadata of an external scaler": {scale(`"rules":[{"name":"a","custom":{"type":"external","metadata":{"scalerAddress":"[::1]:0","enableTLS":"yes","keyFromEnv":"KEY","tlsCertFile":"/x"}}}]`), []string{
			"ContainerAppInvalidValue template.scale.rules[0].custom.metadata.scalerAddress: want the host and port", "ContainerAppInvalidValue template.scale.rules[0].custom.metadata.enableTLS: want true or false, got \"yes\"",
			"ContainerAppInvalidValue template.scale.rules[0].custom.metadata.keyFromEnv: want the name of an environment variable of the first container, got \"KEY\"",
			"ContainerAppInvalidValue template.scale.rules[0].custom.metadata.tlsCertFile: want nothing: it would be a file of KEDA's own container"}},
		"auth of an external scaler": {scale(`"rules":[{"name":"a","custom":{"type":"external","metadata":{"scalerAddress":"a:80"},"auth":[{"secretRef":"key","triggerParameter":"connection"},{"secretRef":"key","triggerParameter":"tlsClientKey"}]}}]`), []string{
			"ContainerAppSecretRefNotFound template.scale.rules[0].custom.auth[0].secretRef: SecretRef 'key' defined for scale rule 'a' not found.", "ContainerAppSecretRefNotFound template.scale.rules[0].custom.auth[1].secretRef: SecretRef",
			"ContainerAppInvalidValue template.scale.rules[0].custom.auth[0].triggerParameter: want caCert, tlsClientCert, tlsClientKey, which are all that external scalers have, got \"connection\"",
			"ContainerAppInvalidValue template.scale.rules[0].custom.auth: want both tlsClientCert and tlsClientKey or neither"}},
		"scale at the wrong level": {`{"properties":{"environmentId":"` + environmentPath + `","scale":{"minReplicas":1},"template":{"containers":[{"name":"chat","image":"i"}]}}}`,
			[]string{"ContainerAppInvalidSchema properties.scale: unknown field; want one of configuration, environmentId, managedEnvironmentId, template, workloadProfileName; did you mean template.scale?"}},
		"a rule's number":         {scale(`"rules":[{"name":"a","http":{"metadata":{"concurrentRequests":10}}}]`), []string{"ContainerAppInvalidSchema template.scale.rules[0].http.metadata.concurrentRequests: want text, got 10"}},
		"a target port of no TCP": {`{"properties":{"environmentId":"` + environmentPath + `","configuration":{"ingress":{"external":true,"targetPort":65536}},"template":{"containers":[{"name":"chat","image":"i"}]}}}`, []string{"ContainerAppInvalidValue configuration.ingress.targetPort: want 1 to 65535, or 0"}},
		"another transport":       {`{"properties":{"environmentId":"` + environmentPath + `","configuration":{"ingress":{"targetPort":1,"transport":"udp"}},"template":{"containers":[{"name":"chat","image":"i"}]}}}`, []string{`ContainerAppInvalidValue configuration.ingress.transport: want Auto or Http or Http2 or Tcp, got "udp"`}},
		"an unknown mode":         {`{"properties":{"environmentId":"` + environmentPath + `","configuration":{"activeRevisionsMode":"Double"},"template":{"containers":[{"name":"chat","image":"i"}]}}}`, []string{`ContainerAppInvalidValue configuration.activeRevisionsMode: want Single or Multiple, got "Double"`}},
		"a location of signs":     {strings.Replace(container(``), `{`, `{"location":"<script>",`, 1), []string{"LocationNotAvailableForResourceType location: want the name of a region"}},
		"an unknown tag":          {strings.Replace(container(``), `{`, `{"tags":{"penstock.standbye":"1"},`, 1), []string{"PenstockInvalidTag tags.penstock.standbye: unknown setting; want one of penstock.behaviour"}},
		"a null in a list":        {container(`,"env":[null]`), []string{"ContainerAppInvalidSchema template.containers[0].env[0]: want a value, got null"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, _, err := app.ReadApp(resource.AppID("s", "g", "chat"), []byte(test.body))
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

// A rule that is valid and cannot do what it says is accepted, as in Azure, and a note says so.
func TestRemarksAboutRules(t *testing.T) {
	cron := func(n string) string {
		return `{"name":"a","custom":{"type":"cron","metadata":{"timezone":"UTC","start":"0 8 * * *","end":"0 9 * * *","desiredReplicas":"` + n + `"}}}`
	}
	metadata := "template.scale.rules[0].custom.metadata."
	tests := map[string]struct{ rule, want string }{
		"cron above maxReplicas":    {cron("11"), metadata + "desiredReplicas is 11, and there are never more than 10 replicas because of maxReplicas"},
		"cron at maxReplicas":       {cron("10"), ""},
		"cpu 1000":                  {`{"name":"a","custom":{"type":"cpu","metadata":{"type":"Utilization","value":"1000"}}}`, metadata + "value is 1000, and the rule never adds a replica"},
		"memory 91":                 {`{"name":"a","custom":{"type":"memory","metadata":{"value":"91"}}}`, metadata + "value is 91, and the rule never adds a replica"},
		"cpu 90":                    {`{"name":"a","custom":{"type":"cpu","metadata":{"value":"90"}}}`, ""},
		"an amount above a percent": {`{"name":"a","custom":{"type":"cpu","metadata":{"type":"AverageValue","value":"1000"}}}`, ""},
	}
	for name, test := range tests {
		body := `{"properties":{"environmentId":"` + environmentPath + `","template":{"containers":[{"name":"chat","image":"i"}],"scale":{"rules":[` + test.rule + `]}}}}`
		_, notes, err := app.ReadApp(resource.AppID("s", "g", "chat"), []byte(body))
		if err != nil || (test.want == "") != (len(notes) == 0) || len(notes) > 1 || !strings.HasPrefix(strings.Join(notes, ""), test.want) {
			t.Errorf("%s: got %q, %v; want %q", name, notes, err, test.want)
		}
	}
}

// Whatever is accepted is answered so that it reads back as the same app: nothing is taken that cannot be said.
func FuzzReadApp(f *testing.F) {
	for _, e := range recorded(f) {
		if e.Request != "" {
			f.Add([]byte(e.Request))
		}
	}
	for _, sample := range samples {
		f.Add([]byte(sample))
	}
	f.Add([]byte(`{"location":"x","tags":{"penstock.retry":"all"},"properties":{"environmentId":"` + environmentPath + `","configuration":{"ingress":{"targetPort":80,"stickySessions":{"affinity":"none"}},"dapr":{"enabled":false}},
		"template":{"revisionSuffix":"v1","containers":[{"name":"a","image":"i","resources":{"cpu":0.1,"memory":"0.2Gi"},"env":[{"name":"A","value":"\ud800"}],"probes":[{"type":"startup","httpGet":{"port":1,"httpHeaders":[{"name":"a","value":"b"}]},"terminationGracePeriodSeconds":1}]},
		{"name":"b","image":"i","resources":{"cpu":0.4,"memory":"0.8Gi"}}],"scale":{"cooldownPeriod":5,"rules":[{"name":"a","custom":{"type":"cpu","metadata":{"value":"70"}}}]}}}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		id := resource.AppID("s", "g", "chat")
		a, _, err := app.ReadApp(id, body)
		if err != nil {
			if invalid, ok := errors.AsType[*resource.InvalidError](err); !ok || len(invalid.Faults) == 0 {
				t.Errorf("%q: an error without a fault: %v", body, err)
			}
			return
		}
		answer, err := json.Marshal(app.NewContainerApp(a, "penstock.localhost", site))
		if err != nil {
			t.Fatalf("%q cannot be answered: %v", body, err)
		}
		again, _, err := app.ReadApp(id, answer)
		if err != nil {
			t.Fatalf("%q is answered as\n%s\nwhich does not read back: %v", body, answer, err)
		}
		if app.RegionName(a.Location) != app.RegionName(again.Location) {
			t.Errorf("location %q became %q", a.Location, again.Location)
		}
		a.Location, again.Location = "", ""
		a.Template.SetDefaultResources(resource.Fast)
		again.Template.SetDefaultResources(resource.Fast)
		if len(a.Tags)+len(again.Tags) == 0 {
			a.Tags, again.Tags = nil, nil
		}
		if !reflect.DeepEqual(a, again) {
			t.Errorf("%q\nbecame %+v\nthen   %+v", body, a, again)
		}
	})
}

func FuzzReadEnvironment(f *testing.F) {
	for _, e := range recorded(f) {
		if e.Request != "" {
			f.Add([]byte(e.Request))
		}
	}
	f.Add([]byte(`{"location":"x","properties":{"workloadProfiles":[{"name":"c","workloadProfileType":"Consumption"}],"vnetConfiguration":{"internal":false,"infrastructureSubnetId":"s"},"zoneRedundant":true}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		id := resource.EnvironmentID("s", "g", "e")
		e, _, err := app.ReadEnvironment(id, body)
		if err != nil {
			return
		}
		answer, err := json.Marshal(app.NewEnvironment(e, site))
		if err != nil {
			t.Fatalf("%q cannot be answered: %v", body, err)
		}
		again, _, err := app.ReadEnvironment(id, answer)
		if err != nil {
			t.Fatalf("%q is answered as\n%s\nwhich does not read back: %v", body, answer, err)
		}
		// zoneRedundant: false is answered whether it was said or not.
		delete(e.Stored, "zoneRedundant")
		delete(again.Stored, "zoneRedundant")
		if len(e.Tags)+len(again.Tags) == 0 {
			e.Tags, again.Tags = nil, nil
		}
		if len(e.Stored)+len(again.Stored) == 0 {
			e.Stored, again.Stored = nil, nil
		}
		if !reflect.DeepEqual(e, again) {
			t.Errorf("%q\nbecame %+v\nthen   %+v", body, e, again)
		}
	})
}

// az, compose and people write numbers and booleans as text. They mean the same and read back as numbers and booleans.
// The metadata of rules is text, and stays so.
func TestNumbersAndBooleansAsText(t *testing.T) {
	const form = `{"location":"koreacentral","properties":{"environmentId":"/subscriptions/s/resourceGroups/g/providers/Microsoft.App/managedEnvironments/e",
		"configuration":{"activeRevisionsMode":"Multiple","maxInactiveRevisions":%[4]s,"dapr":{"enabled":%[2]s},"ingress":{"external":%[1]s,"targetPort":%[3]s,"allowInsecure":%[2]s,"traffic":[{"latestRevision":%[1]s,"weight":%[5]s}]}},
		"template":{"containers":[{"name":"c","image":"i","resources":{"cpu":%[6]s,"memory":"2.5Gi","gpu":%[7]s},"probes":[{"type":"Readiness","httpGet":{"port":%[3]s},"periodSeconds":%[8]s}]}],
		"scale":{"minReplicas":%[9]s,"maxReplicas":%[4]s,"rules":[{"name":"r","http":{"metadata":{"concurrentRequests":%[10]s}}}]}}}}`
	id := resource.AppID("s", "g", "chat")
	plain, _, err := app.ReadApp(id, fmt.Appendf(nil, form, "true", "false", "80", "3", "100", "1.25", "0", "5", "1", `"10"`))
	if err != nil {
		t.Fatal(err)
	}
	asText, _, err := app.ReadApp(id, fmt.Appendf(nil, form, `"True"`, `"false"`, `"80"`, `"3"`, `"100"`, `"1.25"`, `"0"`, `"5"`, `"1"`, `"10"`))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(plain, asText) {
		t.Errorf("as text: %+v\nas numbers: %+v", asText, plain)
	}
	if _, _, err := app.ReadApp(id, fmt.Appendf(nil, form, "true", "false", "80", "3", "100", "1.25", "0", "5", "1", "10")); err == nil || !strings.Contains(err.Error(), "concurrentRequests: want text, got 10") {
		t.Errorf("a number in the metadata of a rule: %v", err)
	}
}
