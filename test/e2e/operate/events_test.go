package operate_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"penstock/test/penstocktest"
)

// A mailbox is an app that is only reachable inside, so control has to call it as a neighbour.
const mailboxManifest = `
name: mailbox
properties:
  configuration:
    ingress: {external: false, targetPort: 8080, additionalPortMappings: [{external: false, targetPort: 8081, exposedPort: 6000}]}
  template:
    containers: [{name: mailbox, image: mailbox:1, resources: {cpu: 0.25, memory: 0.5Gi}}]
    scale: {minReplicas: 1, maxReplicas: 1}
`

const workerManifest = `
name: %s
tags: {penstock.scale-in-window: 1s}
properties:
  configuration:
    ingress: {external: true, targetPort: 8080, allowInsecure: true}
  template:
    containers: [{name: hello, image: hello:1, resources: {cpu: 0.25, memory: 0.5Gi}}]
    scale:
      minReplicas: 0
      maxReplicas: 3
      cooldownPeriod: 1
      pollingInterval: 1
      rules: [{name: mail, custom: {type: %s, metadata: {%s}}}]
`

const readerManifest = `
name: reader
properties:
  configuration:
    triggerType: Event
    replicaTimeout: 60
    eventTriggerConfig:
      scale:
        maxExecutions: 4
        pollingInterval: 1
        rules: [{name: mail, type: external, metadata: {scalerAddress: "mailbox:80"}}]
  template:
    containers: [{name: reader, image: mailbox:1, args: [take, "http://mailbox"], resources: {cpu: 0.25, memory: 0.5Gi}}]
`

// explained is what penstock app explain says of the only rule of an app.
func explained(t *testing.T, m *penstocktest.Machine, app string) (wanted int, failed bool, note string) {
	t.Helper()
	out, _, code := m.Run(t, "app", "explain", app, "-o", "json")
	if code != 0 {
		return -1, false, "" // control is away
	}
	var scale struct {
		Revisions []struct {
			Wanted int
			Rules  []struct {
				Failed bool
				Note   string
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &scale); err != nil {
		t.Fatal(err)
	}
	if len(scale.Revisions) != 1 || len(scale.Revisions[0].Rules) != 1 {
		return -1, false, ""
	}
	r := scale.Revisions[0]
	return r.Wanted, r.Rules[0].Failed, r.Rules[0].Note
}

func TestEvents(t *testing.T) {
	m := penstocktest.Boot(t)
	m.Image(t, "hello")
	m.ImageOf(t, "test", "e2e", "operate", "testdata", "mailbox")
	m.Apply(t, penstocktest.Neighbour("front", "", true))
	m.Apply(t, mailboxManifest)
	mailbox := func(path string) string {
		t.Helper()
		status, answer := m.Inside(t, "front", "http://mailbox"+path, "")
		if status != 200 {
			t.Fatalf("%s: %d %s", path, status, answer)
		}
		return answer
	}
	wants := func(app string, n int) {
		t.Helper()
		defer func() {
			if t.Failed() {
				out, _, _ := m.Run(t, "app", "explain", app)
				t.Log(out)
			}
		}()
		penstocktest.Until(t, 2*time.Minute, fmt.Sprintf("%s wants %d replicas", app, n), func() bool {
			got, _, _ := explained(t, m, app)
			return got == n
		})
	}

	t.Run("apps follow a scaler of their environment", func(t *testing.T) {
		m.Apply(t, fmt.Sprintf(workerManifest, "worker", "external-push", `scalerAddress: "mailbox:80"`))
		m.Apply(t, fmt.Sprintf(workerManifest, "secure", "external", `scalerAddress: "mailbox.internal.penstock.localhost:443", enableTLS: "true"`))
		m.Apply(t, fmt.Sprintf(workerManifest, "raw", "external", `scalerAddress: "mailbox:6000"`))
		wants("worker", 0)
		wants("secure", 0)
		wants("raw", 0)
		began := time.Now()
		mailbox("/set?n=2")
		wants("worker", 2)
		t.Logf("from the push to 2 wanted replicas: %s", time.Since(began).Round(time.Millisecond))
		wants("secure", 2)
		wants("raw", 2)
		mailbox("/set?n=0")
		wants("worker", 0)
		wants("secure", 0)
		m.Must(t, "app", "delete", "worker")
		m.Must(t, "app", "delete", "secure")
		m.Must(t, "app", "delete", "raw")
	})

	t.Run("replicas cannot be addressed", func(t *testing.T) {
		for name, address := range map[string]string{"astray": m.Gateway(t, "front") + ":80", "local": "169.254.169.254:80"} {
			m.Apply(t, fmt.Sprintf(workerManifest, name, "external", fmt.Sprintf("scalerAddress: %q", address)))
			penstocktest.Until(t, 2*time.Minute, "the refusal", func() bool {
				_, failed, note := explained(t, m, name)
				return failed && (strings.Contains(note, "belongs to replicas") || strings.Contains(note, "want the address of a server"))
			})
			m.Must(t, "app", "delete", name)
		}
	})

	t.Run("a job runs once for each message, while control is killed", func(t *testing.T) {
		const messages = 12
		m.Must(t, "job", "create", "-f", m.File(t, readerManifest))
		mailbox(fmt.Sprintf("/set?n=%d", messages))
		kills := 0
		penstocktest.Until(t, 3*time.Minute, "all messages are read", func() bool {
			var left, done, empty int
			if _, err := fmt.Sscanf(mailbox("/"), "messages %d, done %d, empty %d", &left, &done, &empty); err != nil {
				t.Fatal(err)
			}
			if empty > 0 {
				t.Fatalf("%d executions found no message", empty)
			}
			if kills < 2 && done > 4*kills {
				control := m.Role(t, "control")
				if err := syscall.Kill(control, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				kills++
				penstocktest.Until(t, time.Minute, "control is new", func() bool {
					pid := m.Role(t, "control")
					return pid != 0 && pid != control
				})
			}
			return left == 0
		})
		var executions []execution
		penstocktest.Until(t, time.Minute, "all executions have ended", func() bool {
			out, _, code := m.Run(t, "job", "execution", "list", "reader", "-o", "json")
			if code != 0 {
				return false
			}
			executions = nil
			if err := json.Unmarshal([]byte(out), &executions); err != nil {
				t.Fatal(err)
			}
			for _, e := range executions {
				if e.Properties.Status != "Succeeded" {
					return false
				}
			}
			return true
		})
		if len(executions) != messages || kills != 2 {
			t.Errorf("%d executions for %d messages, %d kills of control", len(executions), messages, kills)
		}
		if got := mailbox("/"); got != fmt.Sprintf("messages 0, done %d, empty 0\n", messages) {
			t.Errorf("the mailbox has %s", got)
		}
	})
}
