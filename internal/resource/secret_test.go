package resource_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"penstock/internal/resource"
)

func TestASecretPrintsAsStars(t *testing.T) {
	const plain = "correct horse"
	s := resource.Secret(plain)
	var logged bytes.Buffer
	for _, handler := range []slog.Handler{slog.NewTextHandler(&logged, nil), slog.NewJSONHandler(&logged, nil)} {
		slog.New(handler).Info("seen", "secret", s, "in", resource.AppSecret{Name: "key", Value: s})
	}
	encoded, err := json.Marshal(map[string]any{"secret": s, "app": resource.AppSecret{Name: "key", Value: s}})
	if err != nil {
		t.Fatal(err)
	}
	for how, text := range map[string]string{
		"%v": fmt.Sprint(s), "%q": fmt.Sprintf("%q", s), "%#v": fmt.Sprintf("%#v %+v", s, resource.AppSecret{Value: s}),
		"slog": logged.String(), "json": string(encoded),
	} {
		if strings.Contains(text, plain) || !strings.Contains(text, "***") {
			t.Errorf("%s prints %s", how, text)
		}
	}
	if n := strings.Count(logged.String(), "***"); n < 3 {
		t.Errorf("stars are logged %d times: %s", n, logged.String())
	}
	if s.Reveal() != plain {
		t.Errorf("the value is %q", s.Reveal())
	}
}

func TestValidateSecrets(t *testing.T) {
	withSecrets := func(names ...string) func(*resource.App) {
		return func(a *resource.App) {
			for _, name := range names {
				a.Configuration.Secrets = append(a.Configuration.Secrets, resource.AppSecret{Name: name})
			}
		}
	}
	refer := func(ref, value string) func(*resource.App) {
		return func(a *resource.App) {
			a.Configuration.Secrets = []resource.AppSecret{{Name: "key"}}
			a.Template.Containers[0].Env = []resource.EnvVar{{Name: "KEY", Value: value, SecretRef: ref}}
		}
	}
	inVolume := func(files ...resource.SecretFile) func(*resource.App) {
		return func(a *resource.App) {
			a.Configuration.Secrets = []resource.AppSecret{{Name: "key"}}
			a.Template.Volumes = []resource.Volume{{Name: "keys", Type: resource.SecretFiles, Secrets: files}}
		}
	}
	tests := map[string]struct {
		change func(*resource.App)
		code   string // "" when nothing is wrong
	}{
		"a secret that is referred to":     {refer("key", ""), ""},
		"digits and dashes":                {withSecrets("0", "a-1-b"), ""},
		"a volume of a secret":             {inVolume(resource.SecretFile{Secret: "key", Path: "a/b"}), ""},
		"a volume of what is not there":    {inVolume(resource.SecretFile{Secret: "other", Path: "a"}), "ContainerAppSecretRefNotFound"},
		"a reference to what is not there": {refer("other", ""), "ContainerAppSecretRefNotFound"},
		"a value beside a reference":       {refer("key", "x"), "ContainerAppInvalidValue"},
		"a name in capitals":               {withSecrets("Key"), "ContainerAppSecretInvalid"},
		"a name with a dash at its end":    {withSecrets("key-"), "ContainerAppSecretInvalid"},
		"no name":                          {withSecrets(""), "ContainerAppSecretInvalid"},
		"a name of 254 characters":         {withSecrets(strings.Repeat("a", 254)), "ContainerAppSecretInvalid"},
		"one name twice":                   {withSecrets("key", "key"), "ContainerAppSecretInvalid"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			a := valid()
			test.change(&a)
			faults := resource.ValidateApp(a)
			switch {
			case test.code == "" && len(faults) > 0:
				t.Errorf("got %v", faults)
			case test.code != "" && (len(faults) != 1 || faults[0].Code != test.code):
				t.Errorf("got %v, want %s", faults, test.code)
			}
		})
	}
}
