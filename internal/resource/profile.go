package resource

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Consumption is the profile that every environment has. Its replicas have one of a few sizes.
const Consumption = "Consumption"

// Profile is a workload profile of an environment: a type of machine, under a name by which apps ask for it.
type Profile struct {
	Name string
	Type string // of ProfileTypes
	// Min and Max bound the number of nodes. Only dedicated profiles have them.
	Min, Max int `json:",omitempty"`
}

// ProfileType is a type of machine, by Azure's name (learn.microsoft.com/azure/container-apps/workload-profiles-overview).
type ProfileType struct {
	Name     string
	Category string
	Cores    int
	MemoryGi int
	// Dedicated types are whole nodes that apps share. On Consumption each replica gets what it asked for.
	Dedicated bool
}

// ProfileTypes lists the types that an environment can have. This machine is the node of all of them: the type limits
// what a replica can ask for, and the machine limits what it gets.
func ProfileTypes() []ProfileType {
	types := []ProfileType{{Consumption, Consumption, 4, 8, false}}
	for _, cores := range []int{4, 8, 16, 32} {
		types = append(types, ProfileType{fmt.Sprintf("D%d", cores), "GeneralPurpose", cores, 4 * cores, true})
	}
	for _, cores := range []int{4, 8, 16, 32} {
		types = append(types, ProfileType{fmt.Sprintf("E%d", cores), "MemoryOptimized", cores, 8 * cores, true})
	}
	return types
}

// FindProfileType finds a type by its name. It ignores case.
func FindProfileType(name string) (ProfileType, bool) {
	types := ProfileTypes()
	i := slices.IndexFunc(types, func(t ProfileType) bool { return strings.EqualFold(t.Name, name) })
	if i < 0 {
		return ProfileType{}, false
	}
	return types[i], true
}

// ProfileOf returns the type of the profile that an app of the environment asks for by name.
func (e Environment) ProfileOf(name string) (ProfileType, bool) {
	for _, p := range e.Profiles {
		if strings.EqualFold(p.Name, name) {
			return FindProfileType(p.Type)
		}
	}
	if name == "" || strings.EqualFold(name, Consumption) {
		return FindProfileType(Consumption)
	}
	return ProfileType{}, false
}

// ValidateProfiles checks the profiles of an environment. Their types must be known.
func ValidateProfiles(profiles []Profile) []Fault {
	var faults []Fault
	seen, consumption := map[string]bool{}, 0
	for i, p := range profiles {
		bad := func(at, format string, args ...any) {
			faults = append(faults, Fault{"ManagedEnvironmentInvalidValue", fmt.Sprintf("properties.workloadProfiles[%d]", i) + at, fmt.Sprintf(format, args...)})
		}
		if len(p.Name) > 15 || !environmentName.MatchString(p.Name) {
			bad(".name", "want 1 to 15 letters, digits and '-', starting with a letter and ending with a letter or digit, got %q", p.Name)
		}
		if seen[strings.ToLower(p.Name)] {
			bad(".name", "%q is the name of another profile already", p.Name)
		}
		seen[strings.ToLower(p.Name)] = true
		typ, _ := FindProfileType(p.Type)
		switch {
		case !typ.Dedicated && (p.Min != 0 || p.Max != 0):
			bad("", "want no minimumCount and maximumCount, which are of the nodes of dedicated profiles; got %d and %d for %s", p.Min, p.Max, Consumption)
		case !typ.Dedicated:
			if consumption++; consumption > 1 {
				bad(".workloadProfileType", "want one profile of type %s, got another", Consumption)
			}
		case p.Min < 0:
			bad(".minimumCount", "want 0 or more nodes, got %d", p.Min)
		case p.Max < 1 || p.Max < p.Min:
			bad(".maximumCount", "want at least 1 node and at least minimumCount, which is %d, got %d", p.Min, p.Max)
		}
	}
	return faults
}

// ValidateProfile checks what an app or a job asks for against its profile, which is defined in its environment.
func ValidateProfile(profile string, t Template, e Environment) []Fault {
	typ, found := e.ProfileOf(profile)
	if !found {
		var names []string
		for _, p := range e.Profiles {
			names = append(names, p.Name)
		}
		if !slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, Consumption) }) {
			names = append(names, Consumption)
		}
		add := ""
		if typ, known := FindProfileType(profile); known {
			add = fmt.Sprintf("; %s is a type, and this gives the environment a profile of it: %s", typ.Name, addProfile(e.ID, typ))
		}
		return []Fault{{codeValue, "properties.workloadProfileName", fmt.Sprintf(
			"want one of the workload profiles of the environment '%s', which are %s, got %q%s", e.ID.Base(), strings.Join(names, ", "), profile, add)}}
	}
	if !typ.Dedicated {
		if f := validateTotal(t.Containers, e.ID); f != nil {
			return []Fault{*f}
		}
		return nil
	}
	if faults := validateInit(t.InitContainers, int64(typ.Cores)*1000, int64(typ.MemoryGi)*gibibyte); len(faults) > 0 {
		return faults
	}
	var milli, memory int64
	for _, c := range t.Containers {
		milli += c.Resources.MilliCPU
		memory += c.Resources.Memory
	}
	if milli <= int64(typ.Cores)*1000 && memory <= int64(typ.MemoryGi)*gibibyte {
		return nil
	}
	return []Fault{{"ContainerAppInvalidResourceTotal", "template.containers", fmt.Sprintf(
		"The total requested CPU and memory resources for this application (CPU: %s, memory: %s) is invalid. Want together at most what a node of the workload profile %s (%s) has: CPU: %d.0, memory: %d.0. %s",
		decimal(float64(milli)/1000), decimal(float64(memory)/gibibyte), profile, typ.Name, typ.Cores, typ.MemoryGi, largerProfile(milli, memory, e.ID))}}
}

// largerProfile says which dedicated profile has room for a replica of this size, and how an environment gets it.
func largerProfile(milli, memory int64, environment ID) string {
	var fits, largest ProfileType
	for _, t := range ProfileTypes() {
		if !t.Dedicated {
			continue
		}
		if t.MemoryGi > largest.MemoryGi {
			largest = t
		}
		if milli <= int64(t.Cores)*1000 && memory <= int64(t.MemoryGi)*gibibyte && (fits.Name == "" || smaller(t, fits)) {
			fits = t
		}
	}
	if fits.Name == "" {
		return fmt.Sprintf("No workload profile is that large; the largest, %s, has CPU: %d.0, memory: %d.0", largest.Name, largest.Cores, largest.MemoryGi)
	}
	return fmt.Sprintf("The workload profile type %s has CPU: %d.0, memory: %d.0: run %s, and set workloadProfileName: %s in properties",
		fits.Name, fits.Cores, fits.MemoryGi, addProfile(environment, fits), fits.Name)
}

func smaller(a, b ProfileType) bool {
	return cmp.Or(cmp.Compare(a.MemoryGi, b.MemoryGi), cmp.Compare(a.Cores, b.Cores)) < 0
}

// addProfile returns the command that gives an environment a profile with the name of its type.
func addProfile(environment ID, t ProfileType) string {
	command := fmt.Sprintf("penstock env update %s --workload-profile %s:%s", environment.Base(), t.Name, t.Name)
	if !strings.EqualFold(environment.Group, "default") {
		command += " -g " + environment.Group
	}
	return command
}
