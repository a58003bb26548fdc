package cli

import (
	"bytes"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"

	"penstock/internal/resource"
)

// newApp is an app for which there is no manifest yet.
type newApp struct {
	name   string
	image  string
	source string // what it was made from, for people
	port   int    // 0 if it is unknown; the server then finds it
	health string // path of its health check, or ""
	needs  int64  // memory that its models need, in bytes
}

// baseMemory is the memory for the program itself, beside its models.
const baseMemory = 256 << 20

// resources returns the smallest size of a replica in which the models fit, as YAML, and the workload profile that has it, or
// "" for Consumption.
func (a newApp) resources() (text, profile string) {
	const half = 1 << 29
	halves := max(2, (a.needs+baseMemory+half-1)/half)
	consumption, _ := resource.FindProfileType(resource.Consumption)
	if halves <= int64(2*consumption.MemoryGi) {
		return fmt.Sprintf("{cpu: %g, memory: %gGi}", float64(halves)/4, float64(halves)/2), ""
	}
	gi := (halves + 1) / 2
	for _, t := range resource.ProfileTypes() {
		if t.Dedicated && int64(t.MemoryGi) >= gi {
			return fmt.Sprintf("{cpu: %d, memory: %dGi}", t.Cores, gi), t.Name
		}
	}
	types := resource.ProfileTypes()
	largest := types[len(types)-1]
	return fmt.Sprintf("{cpu: %d, memory: %dGi}", largest.Cores, largest.MemoryGi), largest.Name
}

// yaml returns the manifest.
func (a newApp) yaml() []byte {
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	size, profile := a.resources()
	line("# Written by Penstock for %s. It is yours now: change it as you like.", a.source)
	line("name: %s", a.name)
	line("properties:")
	if profile != "" {
		line("  workloadProfileName: %s # the environment needs this profile: replicas of Consumption have at most 8 GiB", profile)
	}
	line("  configuration:")
	if a.port != 0 {
		line("    ingress: {external: true, targetPort: %d, allowInsecure: true}", a.port)
	} else {
		line("    ingress: {external: true, allowInsecure: true} # without a targetPort: the port that the program listens on")
	}
	line("  template:")
	line("    containers:")
	line("      - name: %s", a.name)
	line("        image: %s", a.image)
	if a.needs > 0 {
		line("        resources: %s # the models need %s", size, bytesText(a.needs))
	} else {
		line("        resources: %s", size)
	}
	if a.health != "" && a.port != 0 {
		line("        probes:")
		line("          - {type: Readiness, httpGet: {path: %s, port: %d}}", a.health, a.port)
	}
	line("    scale:")
	line("      minReplicas: 0 # nobody asks: no replica; the next request starts one")
	line("      maxReplicas: 3")
	line("      rules: [{name: users, http: {metadata: {concurrentRequests: \"10\"}}}]")
	return b.Bytes()
}

var notInAppName = regexp.MustCompile(`[^a-z0-9]+`)

// appNameFrom makes the name of an app from that of a folder or an image. The result is "" if nothing is left.
func appNameFrom(text string) string {
	name := strings.Trim(notInAppName.ReplaceAllString(strings.ToLower(text), "-"), "-")
	name = strings.TrimLeft(name, "-0123456789")
	if name = strings.TrimRight(name[:min(len(name), 32)], "-"); resource.ValidateAppName(name) != nil {
		return ""
	}
	return name
}

// chooseName returns the name of a new app: the one given by --name, or one made from text.
func chooseName(given, text string) (string, error) {
	if given == "" {
		if name := appNameFrom(filepath.Base(text)); name != "" {
			return name, nil
		}
		return "", UsageError(fmt.Errorf("--name: want the name of the app, since none can be made from %q", filepath.Base(text)))
	}
	if fault := resource.ValidateAppName(given); fault != nil {
		return "", UsageError(fmt.Errorf("--name: %s", fault.Message))
	}
	return given, nil
}
