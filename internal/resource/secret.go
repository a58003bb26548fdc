package resource

import (
	"fmt"
	"regexp"
	"slices"
)

// Secret is a value that must not be shown. It appears as stars wherever it is printed, logged or encoded. slog uses
// MarshalText.
type Secret string

const stars = "***"

func (Secret) String() string               { return stars }
func (Secret) GoString() string             { return stars }
func (Secret) MarshalText() ([]byte, error) { return []byte(stars), nil }

// Reveal returns the value itself.
func (s Secret) Reveal() string { return string(s) }

// AppSecret is a named secret of an app or a job. All its revisions or executions can refer to it.
type AppSecret struct {
	Name string
	// Value is what a user sent. "" means that the stored value stays. Value itself is not stored.
	Value Secret `json:"-"`
	// Sealed is the encrypted value, which is what is stored.
	Sealed []byte
}

// Purpose is the purpose for which a secret of an app or a job is sealed. It cannot be opened for any other purpose.
func (s AppSecret) Purpose(owner ID) string { return owner.Key() + "/secrets/" + s.Name }

// codeSecret is Azure's error code for an invalid secret.
const codeSecret = "ContainerAppSecretInvalid"

// maxSecretName is Kubernetes' limit on the key of a secret.
const maxSecretName = 253

var secretName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)

// validateSecrets checks the names of the secrets, and that every secret that is referred to exists
// (learn.microsoft.com/azure/container-apps/manage-secrets).
func validateSecrets(secrets []AppSecret, t Template, ofJob []ScaleRule) []Fault {
	var faults []Fault
	known := map[string]int{}
	for i, s := range secrets {
		field := fmt.Sprintf("configuration.secrets[%d].name", i)
		if len(s.Name) > maxSecretName || !secretName.MatchString(s.Name) {
			faults = append(faults, Fault{codeSecret, field, fmt.Sprintf(
				"want 1 to %d lower-case letters, digits and '-', starting and ending with a letter or digit, got %q", maxSecretName, s.Name)})
		}
		if first, taken := known[s.Name]; taken {
			faults = append(faults, Fault{codeSecret, field, fmt.Sprintf("%q is the name of secrets[%d] already", s.Name, first)})
			continue
		}
		known[s.Name] = i
	}
	check := func(list string, containers []Container) {
		for i, c := range containers {
			for j, v := range c.Env {
				if _, there := known[v.SecretRef]; v.SecretRef != "" && !there {
					faults = append(faults, Fault{"ContainerAppSecretRefNotFound", fmt.Sprintf("template.%s[%d].env[%d].secretRef", list, i, j),
						fmt.Sprintf("SecretRef '%s' defined for container '%s' not found.", v.SecretRef, c.Name)})
				}
			}
		}
	}
	check("containers", t.Containers)
	check("initContainers", t.InitContainers)
	rules := func(field string, rules []ScaleRule, at func(kind string) string) {
		for i, rule := range rules {
			kind, auth := rule.auth()
			for j, a := range auth {
				if _, there := known[a.SecretRef]; a.SecretRef != "" && !there {
					faults = append(faults, Fault{"ContainerAppSecretRefNotFound", fmt.Sprintf("%s.rules[%d]%s.auth[%d].secretRef", field, i, at(kind), j),
						fmt.Sprintf("SecretRef '%s' defined for scale rule '%s' not found.", a.SecretRef, rule.Name)})
				}
			}
		}
	}
	rules("template.scale", t.Scale.Rules, func(kind string) string { return "." + kind })
	rules(eventScale, ofJob, func(string) string { return "" })
	for i, v := range t.Volumes {
		for j, f := range v.Secrets {
			if _, there := known[f.Secret]; !there {
				faults = append(faults, Fault{"ContainerAppSecretRefNotFound", fmt.Sprintf("template.volumes[%d].secrets[%d].secretRef", i, j),
					fmt.Sprintf("SecretRef '%s' defined for volume '%s' not found.", f.Secret, v.Name)})
			}
		}
	}
	return faults
}

// ValidateSecretSizes checks that the secrets that a template has in environment variables fit in them. size returns the
// length of the value of a secret.
func ValidateSecretSizes(t Template, size func(name string) int) []Fault {
	var faults []Fault
	check := func(list string, containers []Container) {
		for i, c := range containers {
			for j, v := range c.Env {
				if v.SecretRef != "" && len(v.Name)+1+size(v.SecretRef) > MaxText {
					faults = append(faults, Fault{codeValue, fmt.Sprintf("template.%s[%d].env[%d].secretRef", list, i, j), fmt.Sprintf(
						"the value of secret '%s' is too long for a variable: want at most %d bytes with the name and '=' of %q; mount it as a file of a volume", v.SecretRef, MaxText, v.Name)})
				}
			}
		}
	}
	check("containers", t.Containers)
	check("initContainers", t.InitContainers)
	return faults
}

// SecretInEnv says whether an environment variable of a container has the value of a secret.
func (t Template) SecretInEnv(name string) bool {
	for _, c := range slices.Concat(t.Containers, t.InitContainers) {
		if slices.ContainsFunc(c.Env, func(v EnvVar) bool { return v.SecretRef == name }) {
			return true
		}
	}
	return false
}
