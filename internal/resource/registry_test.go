package resource_test

import (
	"strings"
	"testing"

	"penstock/internal/resource"
)

func TestRegistries(t *testing.T) {
	with := func(registries ...resource.Registry) []resource.Registry { return registries }
	tests := map[string]struct {
		registries []resource.Registry
		faults     []string // code, field and a word of each
	}{
		"one that everybody may ask":   {with(resource.Registry{Server: "registry.example:5000"}), nil},
		"one with a login":             {with(resource.Registry{Server: "chat.azurecr.io", Username: "ann", PasswordSecretRef: "password"}), nil},
		"Docker Hub as az writes it":   {with(resource.Registry{Server: "https://index.docker.io/v1/", Username: "ann", PasswordSecretRef: "password"}), nil},
		"without a server":             {with(resource.Registry{}), []string{"ContainerAppInvalidValue configuration.registries[0].server host"}},
		"a server that is none":        {with(resource.Registry{Server: "ftp://x y"}), []string{"ContainerAppInvalidValue configuration.registries[0].server host"}},
		"a user without a password":    {with(resource.Registry{Server: "r.example", Username: "ann"}), []string{"ContainerAppInvalidValue configuration.registries[0].passwordSecretRef ann"}},
		"a password without a user":    {with(resource.Registry{Server: "r.example", PasswordSecretRef: "password"}), []string{"ContainerAppInvalidValue configuration.registries[0].username password"}},
		"a user that would end a line": {with(resource.Registry{Server: "r.example", Username: "a\r\nb", PasswordSecretRef: "password"}), []string{"ContainerAppInvalidValue configuration.registries[0].username line"}},
		"a secret that is not there":   {with(resource.Registry{Server: "r.example", Username: "ann", PasswordSecretRef: "none"}), []string{"ContainerAppRegistriesPasswordSecretRefNotFound configuration.registries[0].passwordSecretRef 'none'"}},
		"the same server twice":        {with(resource.Registry{Server: "r.example"}, resource.Registry{Server: "https://R.example/"}), []string{"ContainerAppInvalidValue configuration.registries[1].server already"}},
		"Docker Hub by two names":      {with(resource.Registry{Server: "docker.io"}, resource.Registry{Server: "https://index.docker.io/v1/"}), []string{"ContainerAppInvalidValue configuration.registries[1].server already"}},
		"two faults of two registries": {with(resource.Registry{Server: "-"}, resource.Registry{Server: "r.example", Username: "u"}), []string{"ContainerAppInvalidValue configuration.registries[0].server host", "ContainerAppInvalidValue configuration.registries[1].passwordSecretRef secret"}},
	}
	for what, tt := range tests {
		t.Run(what, func(t *testing.T) {
			a := resource.App{Configuration: resource.Configuration{Registries: tt.registries, Secrets: []resource.AppSecret{{Name: "password"}}}}
			var got []resource.Fault
			for _, f := range resource.ValidateApp(a) {
				if strings.HasPrefix(f.Field, "configuration.registries") {
					got = append(got, f)
				}
			}
			if len(got) != len(tt.faults) {
				t.Fatalf("got %v, want %v", got, tt.faults)
			}
			for i, want := range tt.faults {
				words := strings.Fields(want)
				if got[i].Code != words[0] || got[i].Field != words[1] || !strings.Contains(got[i].Message, words[2]) {
					t.Errorf("got %v, want %s", got[i], want)
				}
			}
		})
	}
}
