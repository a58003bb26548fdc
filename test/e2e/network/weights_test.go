package network_test

import (
	"net/http"
	"strings"
	"testing"

	"penstock/test/penstocktest"
)

const weightsManifest = `
name: split
properties:
  configuration:
    activeRevisionsMode: Multiple
    ingress:
      external: true
      targetPort: 8080
      allowInsecure: true
      traffic: [TRAFFIC]
  template:
    revisionSuffix: SUFFIX
    containers:
      - name: hello
        image: hello:1
        args: [ARGS]
        resources: {cpu: 0.25, memory: 0.5Gi}
    scale: {minReplicas: 1, maxReplicas: 1}
`

// A tenth of the requests goes to a revision that cannot start: that tenth fails at once, without the reason, which is for the events, and no more.
// Nothing moves by itself, and the label of the good revision is not touched.
func TestAShareOfABrokenRevisionFails(t *testing.T) {
	m := penstocktest.Boot(t)
	m.Image(t, "hello")
	manifest := func(traffic, suffix, args string) string {
		return strings.NewReplacer("TRAFFIC", traffic, "SUFFIX", suffix, "ARGS", args).Replace(weightsManifest)
	}
	m.Apply(t, manifest("{latestRevision: true, weight: 100}", "good", ""))
	split := "{revisionName: split--good, weight: 90, label: stable}, {revisionName: split--bad, weight: 10}"
	if _, said, code := m.Run(t, "up", "-f", m.File(t, manifest(split, "bad", `exit, "3"`))); code == 0 || !strings.Contains(said, "exit code 3") {
		t.Fatalf("a broken revision: exit code %d, %s", code, said)
	}
	const asked = 600
	failed := 0
	for range asked {
		status, body := m.Ask(t, http.MethodGet, "split", "/", "")
		switch {
		case status == http.StatusServiceUnavailable && body == "no replica of this app can be started":
			failed++
		case status != http.StatusOK:
			t.Fatalf("%d %s", status, body)
		}
	}
	// 60 are expected; further than five standard deviations (7.3 each) away chance does not lead.
	if failed < 60-37 || failed > 60+37 {
		t.Errorf("%d of %d requests failed, want about a tenth", failed, asked)
	}
	t.Logf("%d of %d requests failed", failed, asked)
	for range 20 {
		if status, body := m.Ask(t, http.MethodGet, "split---stable", "/", ""); status != http.StatusOK {
			t.Fatalf("the label: %d %s", status, body)
		}
	}
	m.Must(t, "revision", "deactivate", "split", "split--bad")
	if status, body := m.Ask(t, http.MethodGet, "split---none", "/", ""); status != http.StatusNotFound {
		t.Errorf("a label that is not there: %d %s", status, body)
	}
}
