package app

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"

	"penstock/internal/resource"
)

// Effect says what happens to a field that Azure has and Penstock has not built.
type Effect string

const (
	// Refused fields make the request fail, unless their value asks for nothing.
	Refused Effect = "refused"
	// Stored fields are stored and returned, and a warning event of the app names them.
	Stored Effect = "stored"
)

// Field is a field of Azure that has no effect here. A value that asks for nothing (null, empty, off) is always
// accepted.
type Field struct {
	Type   string `json:"type"`
	Path   string `json:"path"` // "template.containers[].volumeMounts"
	Effect Effect `json:"effect"`
	// Except describes the values that mean the same here as in Azure.
	Except string `json:"except,omitempty"`
	Why    string `json:"why"`

	harmless func(value) bool
}

// Fields returns all such fields, for the compatibility page.
func Fields() []Field {
	return slices.Concat(appFields(), environmentFields(), jobFields(), certificateFields(), storageFields())
}

func appFields() []Field {
	fields := []Field{
		refused("kind", "workflow and function apps are other products").unless("containerapps or containerapp", words("containerapps", "containerapp")),
		refused("plan", "nothing is bought in a marketplace"),
		refused("sku", "a workload profile says how large a replica can be").unless("name: Consumption", hasOnly("name", words("Consumption"))),
		refused("zones", "everything runs on one machine"),
		refused("managedBy", "an app is not managed by another resource"),
		refused("extendedLocation", "there are no custom locations"),
		refused("identity", "managed identities are not supported, because nothing issues tokens").unless("type None", hasOnly("type", words("None"))),
		refused("properties.workloadProfileType", "set workloadProfileName, the profile's name in the environment"),
		refused("properties.delegatedIdentities", "managed identities are not supported, because nothing issues tokens"),
		refused("properties.networking", "apps have no subnets"),
		refused("properties.patchingConfiguration", "images are not patched"),
		refused("configuration.activeRevisionsMode", "activating revisions by labels is not supported").unless("Single or Multiple", notWords("Labels")),
		refused("configuration.secrets[].keyVaultUrl", "Key Vault is not supported"),
		refused("configuration.secrets[].identity", "managed identities are not supported, because nothing issues tokens"),
		refused("configuration.registries[].identity", "managed identities are not supported, because nothing issues tokens"),
		refused("configuration.dapr", "there is no Dapr sidecar").unless("enabled: false", off("enabled")),
		refused("configuration.runtime", "language-specific runtimes are not supported"),
		refused("configuration.service", "there are no dev services"),
		refused("configuration.identitySettings", "managed identities are not supported, because nothing issues tokens"),
		refused("configuration.revisionTransitionThreshold", "the share of ready replicas that a revision switch waits for is fixed"),
		refused("configuration.targetLabel", "activating revisions by labels is not supported"),
		refused("template.volumes[].storageType", "storages are folders of this machine").unless("EmptyDir, Secret, AzureFile or NfsAzureFile", notWords("Smb")),
		stored("template.volumes[].mountOptions", "storages are folders of this machine, whose files keep their owners and modes; only the option ro has an effect").unless("ro", words("ro")),
		refused("template.serviceBinds", "there are no dev services"),
		refused("template.containers[].imageType", "containers are created from images only").unless("ContainerImage", words("ContainerImage")),
		refused("template.initContainers[].imageType", "containers are created from images only").unless("ContainerImage", words("ContainerImage")),
		refused("template.containers[].probes[].tcpSocket.host", "probes connect only to the replica"),
		refused("template.containers[].resources.gpu", "replicas get no GPU").unless("0", numbers(0)),
		refused("template.initContainers[].resources.gpu", "replicas get no GPU").unless("0", numbers(0)),
		stored("template.scale.rules[].azureQueue", "the queue is not queried; the rule counts as one replica, never as zero"),
		stored("template.scale.rules[].custom.type", "this scaler is not evaluated; the rule counts as one replica, never as zero").
			unless("http, tcp, cpu, memory, cron, external or external-push", words("http", "tcp", "cpu", "memory", "cron", resource.External, resource.ExternalPush)),
	}
	for i := range fields {
		fields[i].Type = resource.TypeApp
	}
	return fields
}

// jobFields returns the fields of jobs: those that apps have too, and their own.
func jobFields() []Field {
	own := []Field{
		stored("configuration.eventTriggerConfig.scale.rules[].type", "this scaler is not evaluated, so the rule starts nothing; a job needs another rule too").
			unless("external, external-push or cron", words(resource.External, resource.ExternalPush, "cron", "http", "tcp", "cpu", "memory")),
	}
	for _, f := range appFields() {
		if slices.ContainsFunc(ofJobsToo(), func(prefix string) bool { return strings.HasPrefix(f.Path, prefix) }) {
			own = append(own, f)
		}
	}
	for i := range own {
		own[i].Type = resource.TypeJob
	}
	return own
}

// ofJobsToo returns the beginnings of the paths that apps and jobs have in common.
func ofJobsToo() []string {
	return []string{
		"extendedLocation", "plan", "sku", "zones", "properties.delegatedIdentities", "identity", "configuration.secrets[]", "configuration.registries",
		"configuration.identitySettings", "template.volumes[]", "template.containers[]", "template.initContainers[]",
	}
}

func environmentFields() []Field {
	fields := []Field{
		refused("kind", "there is only one kind of environment"),
		refused("identity", "managed identities are not supported, because nothing issues tokens").unless("type None", hasOnly("type", words("None"))),
		refused("sku", "there is only one kind of environment").unless("name: Consumption", hasOnly("name", words("Consumption"))),
		refused("plan", "nothing is bought in a marketplace"),
		refused("zones", "an environment runs on one machine"),
		refused("properties.environmentMode", "there is only one kind of environment"),
		stored("properties.appLogsConfiguration", "logs stay on this server").unless("destination: none", hasOnly("destination", words("none"))),
		stored("properties.zoneRedundant", "an environment runs on one machine").unless("false", isFalse),
		stored("properties.vnetConfiguration", "environments use the machine's network").unless("internal: false and nothing else", hasOnly("internal", isFalse)),
		refused("properties.vnetConfiguration.internal", "the ingress listens where the server's configuration says").unless("false", isFalse),
		refused("properties.vnetConfiguration.outboundSettings", "outbound traffic uses the machine's routes"),
		refused("properties.internalLoadBalancerEnabled", "the ingress listens where the server's configuration says").unless("false", isFalse),
		stored("properties.infrastructureResourceGroup", "there are no infrastructure resources to group"),
		refused("properties.workloadProfiles[].workloadProfileType", "this machine is the node of every profile: its replicas get no GPU, its memory is not encrypted, and nobody else uses it").unless("Consumption, D4 to D32, E4 to E32", machineTypes),
		refused("properties.workloadProfiles[].enableFips", "the cryptography of containers is not checked").unless("false", isFalse),
		stored("properties.workloadProfiles[].maximumCount", "this machine is the one node of every profile, whatever minimumCount and maximumCount say").unless("0 or 1", numbers(0, 1)),
		refused("properties.customDomainConfiguration.dnsSuffix", "the domain is set in the server's configuration"),
		refused("properties.customDomainConfiguration.certificateValue", "the domain is set in the server's configuration"),
		refused("properties.customDomainConfiguration.certificatePassword", "the domain is set in the server's configuration"),
		refused("properties.customDomainConfiguration.certificateKeyVaultProperties", "the domain is set in the server's configuration"),
		refused("properties.daprAIInstrumentationKey", "there is no Dapr sidecar"),
		refused("properties.daprAIConnectionString", "there is no Dapr sidecar"),
		refused("properties.appInsightsConfiguration", "traces are not collected"),
		refused("properties.openTelemetryConfiguration", "traces are not collected"),
		stored("properties.ingressConfiguration.workloadProfileName", "the ingress is part of this server and does not use a profile"),
		refused("properties.ingressConfiguration.terminationGracePeriodSeconds", "the ingress is configured in the server's configuration"),
		refused("properties.ingressConfiguration.scale", "there is one ingress, which uses this machine"),
		refused("properties.peerAuthentication.mtls", "traffic between apps is not encrypted").unless("enabled: false", off("enabled")),
		refused("properties.peerTrafficConfiguration.encryption", "traffic between apps is not encrypted").unless("enabled: false", off("enabled")),
		refused("properties.publicNetworkAccess", "the ingress listens where the server's configuration says").unless("Enabled", words("Enabled")),
		refused("properties.availabilityZones", "an environment runs on one machine"),
		refused("properties.diskEncryptionConfiguration", "disk encryption is up to the machine"),
	}
	for i := range fields {
		fields[i].Type = resource.TypeEnvironment
	}
	return fields
}

func refused(path, why string) Field { return Field{Path: path, Effect: Refused, Why: why} }

func stored(path, why string) Field { return Field{Path: path, Effect: Stored, Why: why} }

func (f Field) unless(words string, harmless func(value) bool) Field {
	f.Except, f.harmless = words, harmless
	return f
}

// words accepts these words in any case.
func words(good ...string) func(value) bool {
	return func(v value) bool {
		s, ok := v.scalar.(string)
		return ok && slices.ContainsFunc(good, func(g string) bool { return strings.EqualFold(g, s) })
	}
}

// notWords accepts everything but these words. A word that does not exist in Azure is refused later, with another error.
func notWords(bad ...string) func(value) bool {
	isBad := words(bad...)
	return func(v value) bool { return !isBad(v) }
}

func numbers(good ...int64) func(value) bool {
	return func(v value) bool {
		n, ok := v.as(reflect.Int).scalar.(json.Number)
		if !ok {
			return false
		}
		i, ok := wholeNumber(n)
		return ok && slices.Contains(good, i)
	}
}

func isFalse(v value) bool { return v.as(reflect.Bool).scalar == false }

// off accepts an object in which the field name is false, whatever else is in it.
func off(name string) func(value) bool {
	return func(v value) bool {
		on, ok := v.member(name)
		return ok && isFalse(on)
	}
}

// hasOnly accepts an object in which at most one field is not empty: name, with a value that good accepts.
func hasOnly(name string, good func(value) bool) func(value) bool {
	return func(v value) bool {
		if v.kind != object {
			return false
		}
		for _, m := range v.members {
			if !m.value.isEmpty() && (!strings.EqualFold(m.name, name) || !good(m.value)) {
				return false
			}
		}
		return true
	}
}
