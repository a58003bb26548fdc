package resource

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"
)

const codeValue = "ContainerAppInvalidValue"

// MaxReplicas is Azure's limit on the replicas of a revision (learn.microsoft.com/azure/container-apps/scale-app).
const MaxReplicas = 1000

var (
	appName         = regexp.MustCompile(`^[a-z]([a-z0-9-]*[a-z0-9])?$`)
	environmentName = regexp.MustCompile(`^[a-zA-Z]([a-zA-Z0-9-]*[a-zA-Z0-9])?$`)
	initName        = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?$`)
	containerName   = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)
	envName         = regexp.MustCompile(`^[-._a-zA-Z][-._a-zA-Z0-9]*$`)
	headerName      = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$") // RFC 9110 section 5.6.2
	groupName       = regexp.MustCompile(`^[-\w._()\p{L}\p{N}]{0,89}[-\w_()\p{L}\p{N}]$`)
)

// ValidateAppName checks the name of an app. The name becomes a part of a host name.
func ValidateAppName(name string) *Fault {
	if len(name) < 2 || len(name) > 32 || !appName.MatchString(name) || strings.Contains(name, "--") {
		return &Fault{"ContainerAppInvalidName", "name", fmt.Sprintf(
			"invalid container app name %q: want 2 to 32 lower-case letters, digits and single '-', starting with a letter and ending with a letter or digit", name)}
	}
	return nil
}

// ValidateEnvironmentName checks the name of an environment.
func ValidateEnvironmentName(name string) *Fault {
	if len(name) > 60 || !environmentName.MatchString(name) {
		return &Fault{"ManagedEnvironmentInvalidName", "name", fmt.Sprintf(
			"invalid environment name %q: want 1 to 60 letters, digits and '-', starting with a letter and ending with a letter or digit", name)}
	}
	return nil
}

// ValidateGroupName checks the name of a resource group.
func ValidateGroupName(name string) *Fault {
	if utf8.RuneCountInString(name) > 90 || !groupName.MatchString(name) {
		return &Fault{"InvalidResourceGroup", "resourceGroup", fmt.Sprintf(
			"invalid resource group name %q: want up to 90 letters, digits and any of '-_.()', not ending with '.'", name)}
	}
	return nil
}

// ValidateTags checks tags by the rules of Azure Resource Manager, which are the same for all resources.
func ValidateTags(tags map[string]string) []Fault {
	var faults []Fault
	if len(tags) > 50 {
		faults = append(faults, Fault{"TooManyTags", "tags", fmt.Sprintf("want at most 50, got %d", len(tags))})
	}
	seen := map[string]bool{}
	for name, value := range tags {
		field := "tags." + name
		if name == "" || utf8.RuneCountInString(name) > 512 || strings.ContainsAny(name, `<>%&\?/`) {
			faults = append(faults, Fault{"InvalidTagName", field, `want a name of 1 to 512 characters without < > % & \ ? /`})
		}
		if n := utf8.RuneCountInString(value); n > 256 {
			faults = append(faults, Fault{"InvalidTagValueLength", field, fmt.Sprintf("want at most 256 characters, got %d", n)})
		}
		if seen[strings.ToLower(name)] {
			faults = append(faults, Fault{"DuplicateTag", field, "tag names are equal but for the case of their letters"})
		}
		seen[strings.ToLower(name)] = true
	}
	return faults
}

// ValidateApp checks an app and returns all its faults. The api-version does not matter.
func ValidateApp(a App) []Fault {
	var faults []Fault
	add := func(f *Fault) {
		if f != nil {
			faults = append(faults, *f)
		}
	}
	name := a.ID.Base()
	add(ValidateAppName(name))
	faults = append(faults, ValidateTags(a.Tags)...)
	faults = append(faults, validateIngress(a)...)
	faults = append(faults, validateTraffic(a)...)
	faults = append(faults, validateHostPort(a)...)
	add(validateRevisionSuffix(name, a.Template.RevisionSuffix))
	faults = append(faults, validateSecrets(a.Configuration.Secrets, a.Template, nil)...)
	faults = append(faults, validateRegistries(a.Keyring())...)
	return append(faults, validateTemplate(a.Template, a.Profile, a.Environment)...)
}

// validateTemplate checks a template. The limits of a workload profile other than Consumption are not checked, because
// they are defined in the environment.
func validateTemplate(t Template, profile string, environment ID) []Fault {
	var faults []Fault
	bad := func(field, format string, args ...any) {
		faults = append(faults, Fault{codeValue, field, fmt.Sprintf(format, args...)})
	}
	if t.Grace < 0 || t.Grace > time.Hour {
		bad("template.terminationGracePeriodSeconds", "want 0 to 3600, got %d", int64(t.Grace/time.Second))
	}
	if t.Scale.Min < 0 || t.Scale.Min > MaxReplicas {
		bad("template.scale.minReplicas", "want 0 to %d, got %d", MaxReplicas, t.Scale.Min)
	}
	switch {
	case t.Scale.Max < 1 || t.Scale.Max > MaxReplicas:
		bad("template.scale.maxReplicas", "want 1 to %d, got %d", MaxReplicas, t.Scale.Max)
	case t.Scale.Max < t.Scale.Min:
		bad("template.scale.maxReplicas", "want at least minReplicas, which is %d, got %d", t.Scale.Min, t.Scale.Max)
	}
	faults = append(faults, validateRules(t)...)
	if len(t.Containers) == 0 {
		bad("template.containers", "want at least one container, got none")
		return faults
	}
	names := map[string]string{}
	check := func(list string, containers []Container) {
		for i, c := range containers {
			at := fmt.Sprintf("%s[%d]", list, i)
			key := strings.ToLower(c.Name)
			if first, taken := names[key]; taken && key != "" {
				bad("template."+at+".name", "%q is the name of %s already", c.Name, first)
			} else {
				names[key] = at
			}
			if list == "initContainers" {
				if len(c.Name) > 63 || !initName.MatchString(c.Name) {
					bad("template."+at+".name", "want 1 to 63 letters, digits and '-', starting and ending with a letter or digit, got %q", c.Name)
				}
			} else if len(c.Name) > 63 || !containerName.MatchString(c.Name) {
				bad("template."+at+".name", "want 1 to 63 lower-case letters, digits and '-', starting and ending with a letter or digit, got %q", c.Name)
			}
			faults = append(faults, validateContainer("template."+at, c)...)
		}
	}
	check("containers", t.Containers)
	check("initContainers", t.InitContainers)
	faults = append(faults, validateVolumes(t)...)
	if profile == "" || strings.EqualFold(profile, Consumption) { // ValidateProfile checks the others
		faults = append(faults, validateInit(t.InitContainers, 4000, 8*gibibyte)...)
		if f := validateTotal(t.Containers, environment); f != nil {
			faults = append(faults, *f)
		}
	}
	return faults
}

func validateContainer(field string, c Container) []Fault {
	var faults []Fault
	bad := func(at, format string, args ...any) {
		faults = append(faults, Fault{codeValue, field + at, fmt.Sprintf(format, args...)})
	}
	if c.Image == "" || len(c.Image) > 1024 || strings.ContainsFunc(c.Image, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		bad(".image", "want the reference of an image, as in registry.example/chat:1.0, got %q", c.Image)
	}
	for i, word := range c.Command {
		if strings.Contains(word, "\x00") {
			bad(fmt.Sprintf(".command[%d]", i), "want text without NUL characters")
		}
	}
	for i, word := range c.Args {
		if strings.Contains(word, "\x00") {
			bad(fmt.Sprintf(".args[%d]", i), "want text without NUL characters")
		}
	}
	seen := map[string]bool{}
	for i, v := range c.Env {
		at := fmt.Sprintf(".env[%d]", i)
		if !envName.MatchString(v.Name) {
			bad(at+".name", "want letters, digits and any of '-._', not starting with a digit, got %q", v.Name)
		}
		if seen[v.Name] {
			bad(at+".name", "%q is set twice", v.Name)
		}
		seen[v.Name] = true
		if strings.Contains(v.Value, "\x00") {
			bad(at+".value", "want text without NUL characters")
		}
		if v.Value != "" && v.SecretRef != "" {
			bad(at, "want value or secretRef, got both")
		}
	}
	faults = append(faults, validateSize(field, c)...)
	types := map[ProbeType]bool{}
	for i, p := range c.Probes {
		at := fmt.Sprintf("%s.probes[%d]", field, i)
		if types[p.Type] {
			faults = append(faults, Fault{codeValue, at + ".type", fmt.Sprintf("want at most one %s probe a container, got a second", p.Type)})
		}
		types[p.Type] = true
		faults = append(faults, validateProbe(at, p)...)
	}
	return faults
}

const (
	// MaxText is the longest word of a command line and the longest NAME=value of a variable that Linux starts a program
	// with (MAX_ARG_STRLEN less the NUL at the end).
	MaxText = 128<<10 - 1
	// maxTexts bounds what a container gets in all. Linux has room for 2 MiB (a quarter of the usual limit of a stack);
	// half of it is left for the variables of the image, of secrets and of the platform.
	maxTexts = 1 << 20
	// pointer is what each of them takes beside its text and NUL.
	pointer = 8
)

// validateSize checks that Linux can start the container's program. It fails with "argument list too long" otherwise.
func validateSize(field string, c Container) []Fault {
	var faults []Fault
	sum := 0
	known := map[string]string{} // the values of secrets and of the platform's variables are not
	value := func(name string) (string, bool) {
		v, ok := known[name]
		return v, ok
	}
	check := func(at, text string, more int, what string) (expanded string) {
		expanded = Expand(text, value)
		size := more + len(expanded)
		sum += size + 1 + pointer
		got := fmt.Sprint(more + len(text))
		if len(expanded) > len(text) {
			got = "more with the values of the variables in it"
		}
		if size > MaxText {
			faults = append(faults, Fault{codeValue, field + at, fmt.Sprintf("want at most %d bytes%s, which is what Linux starts a program with, got %s", MaxText, what, got)})
		}
		return expanded
	}
	for i, v := range c.Env {
		text := check(fmt.Sprintf(".env[%d].value", i), v.Value, len(v.Name)+1, fmt.Sprintf(" with the name and '=' of %q", v.Name))
		if v.SecretRef == "" {
			known[v.Name] = text
		}
	}
	for i, word := range c.Command {
		check(fmt.Sprintf(".command[%d]", i), word, 0, "")
	}
	for i, word := range c.Args {
		check(fmt.Sprintf(".args[%d]", i), word, 0, "")
	}
	if len(faults) == 0 && sum > maxTexts {
		faults = append(faults, Fault{codeValue, field, fmt.Sprintf("want command, args and env of at most %d bytes together, got %d; use a volume for large values", maxTexts, sum)})
	}
	return faults
}

// validateProbe accepts what the live service accepts, which is more than its reference says: an initial delay of 0, and
// failure thresholds well above 10.
func validateProbe(field string, p Probe) []Fault {
	var faults []Fault
	within := func(name string, got, least, most int64) {
		if got < least || got > most {
			faults = append(faults, Fault{codeValue, field + name, fmt.Sprintf("want %d to %d, got %d", least, most, got)})
		}
	}
	bad := func(name, format string, args ...any) {
		faults = append(faults, Fault{codeValue, field + name, fmt.Sprintf(format, args...)})
	}
	within(".initialDelaySeconds", int64(p.InitialDelay/time.Second), 0, 60)
	within(".periodSeconds", int64(p.Period/time.Second), 1, 240)
	within(".timeoutSeconds", int64(p.Timeout/time.Second), 1, 240)
	within(".failureThreshold", int64(p.FailureThreshold), 1, 1000)
	if p.Type == Readiness {
		within(".successThreshold", int64(p.SuccessThreshold), 1, 10)
	} else if p.SuccessThreshold != 1 {
		bad(".successThreshold", "want 1, which is the only value for a %s probe, got %d", p.Type, p.SuccessThreshold)
	}
	if p.Grace < 0 || p.Grace > time.Hour {
		within(".terminationGracePeriodSeconds", int64(p.Grace/time.Second), 1, 3600)
	}
	switch {
	case p.HTTP != nil && p.TCP != nil:
		bad("", "want httpGet or tcpSocket, got both")
	case p.HTTP != nil:
		if f := port(field+".httpGet.port", p.HTTP.Port); f != nil {
			faults = append(faults, *f)
		}
		if strings.Contains(p.HTTP.Path, "://") || strings.ContainsFunc(p.HTTP.Path, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			bad(".httpGet.path", "want a path without spaces, such as /health, got %q", p.HTTP.Path)
		}
		if f := host(field+".httpGet.host", p.HTTP.Host); f != nil {
			faults = append(faults, *f)
		}
		for i, h := range p.HTTP.Headers {
			if !headerName.MatchString(h.Name) || strings.ContainsAny(h.Value, "\r\n\x00") {
				bad(fmt.Sprintf(".httpGet.httpHeaders[%d]", i), "want the name and value of an HTTP header, got %q: %q", h.Name, h.Value)
			}
		}
	case p.TCP != nil:
		if f := port(field+".tcpSocket.port", p.TCP.Port); f != nil {
			faults = append(faults, *f)
		}
	default:
		bad("", "want httpGet or tcpSocket, got neither")
	}
	return faults
}

func port(field string, got int) *Fault {
	if got < 1 || got > 65535 {
		return &Fault{codeValue, field, fmt.Sprintf("want 1 to 65535, got %d", got)}
	}
	return nil
}

var hostName = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9.-]{0,251}[a-zA-Z0-9])?$`)

func host(field, got string) *Fault {
	if got == "" || hostName.MatchString(got) {
		return nil
	}
	if _, err := netip.ParseAddr(got); err == nil {
		return nil
	}
	return &Fault{codeValue, field, fmt.Sprintf("want a host name or an address, got %q", got)}
}

// validateTotal checks that the containers of a replica together have one of the sizes of the Consumption profile: 0.25 to
// 4 vCPUs, with two GiB for each (learn.microsoft.com/azure/container-apps/containers). Init containers do not count,
// because they run before the others.
func validateTotal(containers []Container, environment ID) *Fault {
	var milli, bytes int64
	for _, c := range containers {
		if c.Resources.MilliCPU <= 0 || c.Resources.Memory <= 0 {
			return nil // the decoder has reported this fault
		}
		milli += c.Resources.MilliCPU
		bytes += c.Resources.Memory
	}
	const step, most = 250, 4000
	// Amounts such as 0.1Gi are rounded to whole bytes, once for each container.
	slack := int64(len(containers))
	if off := bytes - milli*2*gibibyte/1000; milli%step == 0 && milli <= most && off >= -slack && off <= slack {
		return nil
	}
	var pairs []string
	for m := int64(step); m <= most; m += step {
		pairs = append(pairs, fmt.Sprintf("[cpu: %s, memory: %sGi]", decimal(float64(m)/1000), decimal(float64(m)/500)))
	}
	more := ""
	if milli > most || bytes > most*2*gibibyte/1000+slack {
		more = ". " + largerProfile(milli, bytes, environment)
	}
	return &Fault{"ContainerAppInvalidResourceTotal", "template.containers", fmt.Sprintf(
		"The total requested CPU and memory resources for this application (CPU: %s, memory: %s) is invalid. Total CPU and memory for all containers defined in a Container App must add up to one of the following CPU - Memory combinations: %s%s",
		decimal(float64(milli)/1000), decimal(float64(bytes)/gibibyte), strings.Join(pairs, "; "), more)}
}

// validateInit checks that the init containers of a replica together want no more than it can have.
func validateInit(containers []Container, milli, memory int64) []Fault {
	var wantMilli, wantMemory int64
	for _, c := range containers {
		wantMilli += c.Resources.MilliCPU
		wantMemory += c.Resources.Memory
	}
	var faults []Fault
	if wantMilli > milli {
		faults = append(faults, Fault{"ContainerAppInitContainersInvalidCpu", "template.initContainers", fmt.Sprintf(
			"The total requested CPU of the init containers is %s; want at most %s.", decimal(float64(wantMilli)/1000), decimal(float64(milli)/1000))})
	}
	if wantMemory > memory {
		faults = append(faults, Fault{"ContainerAppInitContainersInvalidMemory", "template.initContainers", fmt.Sprintf(
			"The total requested memory of the init containers is %sGi; want at most %sGi.", decimal(float64(wantMemory)/gibibyte), decimal(float64(memory)/gibibyte))})
	}
	return faults
}

// decimal formats a number as Azure's message does, with one or two decimals.
func decimal(f float64) string {
	return strings.TrimSuffix(fmt.Sprintf("%.2f", f), "0")
}
