package app

import (
	"encoding/json"
	"slices"
	"strings"

	"penstock/internal/resource"
)

// Effect is what becomes of a field that Azure has and Penstock has not built.
type Effect string

const (
	// Refused fields make the request fail when they ask for something.
	Refused Effect = "refused"
	// Stored fields are kept and echoed, and a warning event of the app names them.
	Stored Effect = "stored"
)

// Field is one field of Azure's that has no effect here. A value that asks for nothing (null, empty, off) is always
// taken.
type Field struct {
	Type   string `json:"type"`
	Path   string `json:"path"` // "template.containers[].volumeMounts"
	Effect Effect `json:"effect"`
	// Except says in words which values mean here what they mean in Azure.
	Except string `json:"except,omitempty"`
	Why    string `json:"why"`

	harmless func(value) bool
}

// Fields lists all of them, for the compatibility page.
func Fields() []Field {
	return slices.Concat(appFields(), environmentFields(), jobFields(), certificateFields(), storageFields())
}

func appFields() []Field {
	fields := []Field{
		refused("kind", "workflow and function apps are other products"),
		refused("managedBy", "no other resource manages an app"),
		refused("extendedLocation", "there are no custom locations"),
		refused("identity", "managed identities need an issuer of tokens").unless("type None", hasOnly("type", words("None"))),
		refused("properties.workloadProfileType", "a profile is asked for by its name in the environment"),
		refused("properties.networking", "apps have no subnets"),
		refused("properties.patchingConfiguration", "images are not patched"),
		refused("configuration.activeRevisionsMode", "labels alone do not say which revisions are active").unless("Single or Multiple", notWords("Labels")),
		refused("configuration.secrets[].keyVaultUrl", "there is no Key Vault to ask"),
		refused("configuration.secrets[].identity", "managed identities need an issuer of tokens"),
		refused("configuration.registries[].identity", "managed identities need an issuer of tokens"),
		refused("configuration.dapr", "there is no Dapr sidecar").unless("enabled: false", off("enabled")),
		refused("configuration.runtime", "there is no support for one language's runtime"),
		refused("configuration.service", "there are no dev services"),
		refused("configuration.identitySettings", "managed identities need an issuer of tokens"),
		refused("configuration.revisionTransitionThreshold", "the share of ready replicas that a switch waits for is fixed"),
		refused("configuration.targetLabel", "labels alone do not say which revisions are active"),
		refused("template.volumes[].storageType", "storages are folders of this machine").unless("EmptyDir, Secret, AzureFile or NfsAzureFile", notWords("Smb")),
		stored("template.volumes[].mountOptions", "storages are folders of this machine, whose files keep their owners and modes; of the options only ro is heeded").unless("ro", words("ro")),
		refused("template.serviceBinds", "there are no dev services"),
		refused("template.containers[].imageType", "containers are made from images only").unless("ContainerImage", words("ContainerImage")),
		refused("template.initContainers[].imageType", "containers are made from images only").unless("ContainerImage", words("ContainerImage")),
		refused("template.containers[].probes[].tcpSocket.host", "probes connect to the replica, and to nothing else"),
		refused("template.containers[].resources.gpu", "replicas get no GPU").unless("0", numbers(0)),
		refused("template.initContainers[].resources.gpu", "replicas get no GPU").unless("0", numbers(0)),
		stored("template.scale.rules", "nothing scales yet; an app runs max(1, minReplicas) replicas. An http rule's concurrentRequests, or a tcp rule's concurrentConnections, is how far a replica is filled before the next one"),
		stored("template.scale.cooldownPeriod", "nothing scales yet; an app runs max(1, minReplicas) replicas").unless("300", numbers(300)),
		stored("template.scale.pollingInterval", "nothing scales yet; an app runs max(1, minReplicas) replicas").unless("30", numbers(30)),
	}
	for i := range fields {
		fields[i].Type = resource.TypeApp
	}
	return fields
}

// jobFields are those of what an app has too, and a job's own.
func jobFields() []Field {
	own := []Field{
		refused("configuration.triggerType", "nothing scales yet, so no events are watched").unless("Manual or Schedule", notWords("Event")),
		refused("configuration.eventTriggerConfig", "nothing scales yet, so no events are watched"),
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

// ofJobsToo begin the paths that apps and jobs share.
func ofJobsToo() []string {
	return []string{
		"extendedLocation", "identity", "configuration.secrets[]", "configuration.registries",
		"configuration.identitySettings", "template.volumes[]", "template.containers[]", "template.initContainers[]",
	}
}

func environmentFields() []Field {
	fields := []Field{
		refused("kind", "there is one kind of environment"),
		refused("identity", "managed identities need an issuer of tokens").unless("type None", hasOnly("type", words("None"))),
		refused("sku", "there is one kind of environment").unless("name: Consumption", hasOnly("name", words("Consumption"))),
		refused("properties.environmentMode", "there is one kind of environment"),
		stored("properties.appLogsConfiguration", "logs stay on this server").unless("destination: none", hasOnly("destination", words("none"))),
		stored("properties.zoneRedundant", "an environment is on one machine").unless("false", isFalse),
		stored("properties.vnetConfiguration", "the network is the machine's own").unless("internal: false and nothing else", hasOnly("internal", isFalse)),
		refused("properties.vnetConfiguration.internal", "the ingress listens where the server's configuration says").unless("false", isFalse),
		refused("properties.vnetConfiguration.outboundSettings", "outbound traffic goes the machine's way"),
		refused("properties.internalLoadBalancerEnabled", "the ingress listens where the server's configuration says").unless("false", isFalse),
		stored("properties.infrastructureResourceGroup", "there is no infrastructure to group"),
		refused("properties.workloadProfiles[].workloadProfileType", "this machine is the node of every profile: its replicas get no GPU, its memory is not encrypted, and nobody else uses it").unless("Consumption, D4 to D32, E4 to E32", machineTypes),
		stored("properties.workloadProfiles[].maximumCount", "this machine is the one node of every profile, whatever minimumCount and maximumCount say").unless("0 or 1", numbers(0, 1)),
		refused("properties.customDomainConfiguration.dnsSuffix", "the domain is the server's"),
		refused("properties.customDomainConfiguration.certificateValue", "the domain is the server's"),
		refused("properties.customDomainConfiguration.certificatePassword", "the domain is the server's"),
		refused("properties.customDomainConfiguration.certificateKeyVaultProperties", "the domain is the server's"),
		refused("properties.daprAIInstrumentationKey", "there is no Dapr sidecar"),
		refused("properties.daprAIConnectionString", "there is no Dapr sidecar"),
		refused("properties.appInsightsConfiguration", "traces are not collected"),
		refused("properties.openTelemetryConfiguration", "traces are not collected"),
		stored("properties.ingressConfiguration.workloadProfileName", "the ingress is a part of this server, whichever profile it is given"),
		refused("properties.ingressConfiguration.terminationGracePeriodSeconds", "the ingress is set up in the server's configuration"),
		refused("properties.ingressConfiguration.scale", "there is one ingress, which has this machine"),
		refused("properties.peerAuthentication.mtls", "apps speak in the clear to each other").unless("enabled: false", off("enabled")),
		refused("properties.peerTrafficConfiguration.encryption", "apps speak in the clear to each other").unless("enabled: false", off("enabled")),
		refused("properties.publicNetworkAccess", "the ingress listens where the server's configuration says").unless("Enabled", words("Enabled")),
		refused("properties.availabilityZones", "an environment is on one machine"),
		refused("properties.diskEncryptionConfiguration", "disks are as the machine has them"),
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

// words takes these words in any case of letters.
func words(good ...string) func(value) bool {
	return func(v value) bool {
		s, ok := v.scalar.(string)
		return ok && slices.ContainsFunc(good, func(g string) bool { return strings.EqualFold(g, s) })
	}
}

// notWords takes everything but these words, so that what is no word of Azure's at all is told apart later.
func notWords(bad ...string) func(value) bool {
	isBad := words(bad...)
	return func(v value) bool { return !isBad(v) }
}

func numbers(good ...int64) func(value) bool {
	return func(v value) bool {
		n, ok := v.scalar.(json.Number)
		if !ok {
			return false
		}
		i, ok := wholeNumber(n)
		return ok && slices.Contains(good, i)
	}
}

func isFalse(v value) bool { return v.scalar == false }

// off takes an object whose switch is off, whatever else is in it.
func off(name string) func(value) bool {
	return func(v value) bool {
		on, ok := v.member(name)
		return ok && isFalse(on)
	}
}

// hasOnly takes an object in which nothing but one field says something, and that something good.
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
