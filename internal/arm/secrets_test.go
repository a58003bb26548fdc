package arm_test

import (
	"encoding/json"
	"strings"
	"testing"

	"penstock/internal/logs"
	"penstock/internal/resource"
)

// withSecrets is an app with these secrets, in JSON, that refers to the one named key.
func withSecrets(t *testing.T, secrets string) string {
	t.Helper()
	body := chat(func(properties, _, container map[string]any) {
		container["env"] = []any{map[string]any{"name": "KEY", "secretRef": "key"}}
		properties["configuration"].(map[string]any)["secrets"] = "SECRETS"
	})
	return strings.Replace(body, `"SECRETS"`, secrets, 1)
}

func TestSecretsAreWrittenAndReadByListSecretsOnly(t *testing.T) {
	s := start(t)
	s.environment("e")
	listed := func() string {
		t.Helper()
		a := s.want(200, "POST", base+"/containerApps/chat/listSecrets"+version, "")
		if got := a.header.Get("Cache-Control"); got != "no-store" {
			t.Errorf("Cache-Control: %q", got)
		}
		return string(a.body)
	}
	const value = "s3cret-value"
	put := s.want(201, "PUT", chatPath, withSecrets(t, `[{"name":"key","value":"`+value+`"},{"name":"other","value":"second"}]`))
	s.await(put, "Azure-AsyncOperation")
	got := s.want(200, "GET", chatPath, "")
	list := s.want(200, "GET", base+"/containerApps"+version, "")
	revisions := s.want(200, "GET", base+"/containerApps/chat/revisions"+version, "")
	for what, body := range map[string][]byte{"PUT": put.body, "GET": got.body, "list": list.body, "revisions": revisions.body} {
		if strings.Contains(string(body), value) {
			t.Errorf("%s answers with the value: %s", what, body)
		}
	}
	if !strings.Contains(string(got.body), `"secrets":[{"name":"key"},{"name":"other"}]`) || !strings.Contains(string(got.body), `{"name":"KEY","value":"","secretRef":"key"}`) {
		t.Errorf("names and references are not answered: %s", got.body)
	}
	if want := `{"value":[{"name":"key","value":"` + value + `"},{"name":"other","value":"second"}]}`; listed() != want {
		t.Errorf("listed %s, want %s", listed(), want)
	}

	// What was read is written back: the values stay. A PATCH of something else keeps them too.
	s.await(s.want(201, "PUT", chatPath, string(got.body)), "Azure-AsyncOperation")
	s.await(s.want(202, "PATCH", chatPath, `{"tags":{"team":"ml"}}`), "Azure-AsyncOperation")
	s.await(s.want(202, "PATCH", chatPath, `{"properties":{"configuration":{"secrets":[{"name":"key"},{"name":"other","value":"third"}]}}}`), "Azure-AsyncOperation")
	if want := `{"value":[{"name":"key","value":"` + value + `"},{"name":"other","value":"third"}]}`; listed() != want {
		t.Errorf("listed %s, want %s", listed(), want)
	}
	if again := s.want(200, "GET", base+"/containerApps/chat/revisions"+version, ""); string(again.body) != string(revisions.body) {
		t.Errorf("a changed secret changed the revisions: %s, before %s", again.body, revisions.body)
	}

	for name, test := range map[string]struct{ secrets, code string }{
		"removed while it is referred to":  {`[{"name":"other"}]`, "ContainerAppSecretRefNotFound"},
		"none left":                        {`null`, "ContainerAppSecretRefNotFound"},
		"a new one without a value":        {`[{"name":"key"},{"name":"new"}]`, "ContainerAppSecretInvalid"},
		"a number":                         {`[{"name":"key","value":20251122}]`, "ContainerAppInvalidSchema"},
		"a name in capitals":               {`[{"name":"key"},{"name":"KEY","value":"20251122"}]`, "ContainerAppSecretInvalid"},
		"a NUL":                            {`[{"name":"key","value":"20251122\u0000"}]`, "ContainerAppInvalidValue"},
		"a reference to a Key Vault":       {`[{"name":"key","keyVaultUrl":"https://vault.example/secrets/key","identity":"system"}]`, "FeatureNotSupported"},
		"a field that is nearly the value": {`[{"name":"key","vaule":"20251122"}]`, "ContainerAppInvalidSchema"},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.want(400, "PUT", chatPath, withSecrets(t, test.secrets))
			if a.get(t, "error", "code") != test.code {
				t.Errorf("got %s, want %s", a.body, test.code)
			}
			if strings.Contains(string(a.body), "20251122") {
				t.Errorf("the refusal tells the value: %s", a.body)
			}
		})
	}
	s.await(s.want(201, "PUT", chatPath, chat(nil)), "Azure-AsyncOperation")
	if listed() != `{"value":[]}` {
		t.Errorf("removed secrets are listed: %s", listed())
	}
}

// A new value of a secret does not reach running replicas by itself, and an event says how it does.
func TestAChangedSecretIsTold(t *testing.T) {
	s := start(t)
	s.environment("e")
	told := func() (messages []string) {
		t.Helper()
		for e, err := range s.system.Read(t.Context(), logs.EventQuery{App: resource.AppID(subscription, "ml", "chat")}) {
			if err != nil {
				t.Fatal(err)
			}
			if e.Reason == "SecretsChanged" {
				messages = append(messages, e.Message)
			}
		}
		return messages
	}
	put := func(secrets string) {
		t.Helper()
		s.await(s.want(201, "PUT", chatPath, withSecrets(t, secrets)), "Azure-AsyncOperation")
	}
	put(`[{"name":"key","value":"one"},{"name":"other","value":"one"}]`)
	put(`[{"name":"key","value":"one"},{"name":"other","value":"two"}]`) // no container has other
	put(`[{"name":"key"},{"name":"other"}]`)
	if got := told(); len(got) > 0 {
		t.Errorf("got %q, want nothing", got)
	}
	put(`[{"name":"key","value":"two"},{"name":"other"}]`)
	got := told()
	if len(got) != 1 || !strings.Contains(got[0], "The secret 'key' has a new value") || !strings.Contains(got[0], "penstock app restart chat -g ml") {
		t.Errorf("got %q", got)
	}
	s.await(s.want(202, "PATCH", chatPath, `{"properties":{"configuration":{"secrets":[{"name":"key","value":"three"},{"name":"other"}]}}}`), "Azure-AsyncOperation")
	if got := told(); len(got) != 2 {
		t.Errorf("after a PATCH: got %q", got)
	}
	// A new template brings replicas that have the value.
	body := strings.Replace(withSecrets(t, `[{"name":"key","value":"four"}]`), `"image":"`, `"args":["new"],"image":"`, 1)
	s.await(s.want(201, "PUT", chatPath, body), "Azure-AsyncOperation")
	if got := told(); len(got) != 2 {
		t.Errorf("with a new revision: got %q", got)
	}
}

// A value that a write leaves out stays; one that is empty is refused, because nobody means to keep a secret by that.
func TestSecretValues(t *testing.T) {
	s := start(t)
	s.environment("e")
	with := func(secrets, env string) string {
		return chat(func(properties, _, container map[string]any) {
			properties["configuration"].(map[string]any)["secrets"] = json.RawMessage(secrets)
			container["env"] = json.RawMessage(env)
		})
	}
	long := strings.Repeat("x", 128<<10)
	s.app("chat", with(`[{"name":"key","value":"`+long+`"}]`, `[]`)) // a file can be that long
	for name, test := range map[string]struct{ secrets, env, code, field string }{
		"empty":                   {`[{"name":"key","value":""}]`, `[]`, "ContainerAppSecretInvalid", "configuration.secrets[0].value"},
		"too long for a variable": {`[{"name":"key","value":"` + long + `"}]`, `[{"name":"K","secretRef":"key"}]`, "ContainerAppInvalidValue", "template.containers[0].env[0].secretRef"},
		"kept, and too long":      {`[{"name":"key"}]`, `[{"name":"K","secretRef":"key"}]`, "ContainerAppInvalidValue", "template.containers[0].env[0].secretRef"},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.want(400, "PUT", chatPath, with(test.secrets, test.env))
			if a.get(t, "error", "code") != test.code || a.get(t, "error", "target") != test.field {
				t.Errorf("got %.300s, want %s of %s", a.body, test.code, test.field)
			}
		})
	}
	if a := s.want(200, "POST", base+"/containerApps/chat/listSecrets"+version, ""); a.get(t, "value", 0, "value") != long {
		t.Errorf("the stored value has changed: %.200s", a.body)
	}
}
