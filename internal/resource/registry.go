package resource

import (
	"fmt"
	"regexp"
	"strings"
)

// Registry is a registry from which the images of an app or a job are pulled, with its login.
type Registry struct {
	Server   string
	Username string `json:",omitempty"`
	// PasswordSecretRef names the secret of the app or job that contains the password.
	PasswordSecretRef string `json:",omitempty"`
}

// Keyring has the registries of an app or a job, and the secrets with their passwords.
type Keyring struct {
	Owner      ID
	Registries []Registry
	Secrets    []AppSecret // sealed
}

// Keyring returns the keyring of the app.
func (a App) Keyring() Keyring {
	return Keyring{a.ID, a.Configuration.Registries, a.Configuration.Secrets}
}

// Keyring returns the keyring of the job.
func (j Job) Keyring() Keyring {
	return Keyring{j.ID, j.Configuration.Registries, j.Configuration.Secrets}
}

var registryServer = regexp.MustCompile(`^(https?://)?[a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?(:[0-9]{1,5})?(/[a-zA-Z0-9/._-]*)?$`)

// validateRegistries checks the registries. Each has one login or none
// (learn.microsoft.com/azure/container-apps/containers, "Container registries").
func validateRegistries(keys Keyring) []Fault {
	var faults []Fault
	secrets := map[string]bool{}
	for _, s := range keys.Secrets {
		secrets[s.Name] = true
	}
	known := map[string]int{}
	for i, r := range keys.Registries {
		field := fmt.Sprintf("configuration.registries[%d]", i)
		bad := func(at, format string, args ...any) {
			faults = append(faults, Fault{codeValue, field + at, fmt.Sprintf(format, args...)})
		}
		if len(r.Server) > 255 || !registryServer.MatchString(r.Server) {
			bad(".server", "want the host of a registry, as in registry.example or registry.example:5000, got %q", r.Server)
		} else if first, taken := known[RegistryHost(r.Server)]; taken {
			bad(".server", "%q is the server of registries[%d] already", r.Server, first)
		} else {
			known[RegistryHost(r.Server)] = i
		}
		switch {
		case r.Username == "" && r.PasswordSecretRef != "":
			bad(".username", "want the user name for the password in passwordSecretRef, got nothing")
		case r.Username != "" && r.PasswordSecretRef == "":
			bad(".passwordSecretRef", "want the name of the secret that has the password of user %q, got nothing", r.Username)
		case strings.ContainsAny(r.Username, ":\r\n\x00"):
			bad(".username", "want a name without ':' and line ends, got %q", r.Username)
		}
		if r.PasswordSecretRef != "" && !secrets[r.PasswordSecretRef] {
			faults = append(faults, Fault{"ContainerAppRegistriesPasswordSecretRefNotFound", field + ".passwordSecretRef",
				fmt.Sprintf("PasswordSecretRef '%s' defined for registry server '%s' not found.", r.PasswordSecretRef, r.Server)})
		}
	}
	return faults
}

// DockerHub is the host of Docker Hub in image names.
const DockerHub = "docker.io"

// RegistryHost returns the registry that a server setting or the first part of an image name means. It has no scheme and
// path, is in lower case, and is the same for all names of Docker Hub.
func RegistryHost(server string) string {
	_, rest, ok := strings.Cut(server, "://")
	if !ok {
		rest = server
	}
	host, _, _ := strings.Cut(rest, "/")
	host = strings.ToLower(host)
	switch host {
	case "index.docker.io", "registry-1.docker.io", "www.docker.io", "hub.docker.com":
		return DockerHub
	}
	return host
}
