package app

import (
	"fmt"
	"slices"
	"strings"

	"penstock/internal/resource"
)

// WorkloadProfile is a type of machine, under a name by which apps ask for it.
type WorkloadProfile struct {
	Name                *string `json:"name"`
	WorkloadProfileType *string `json:"workloadProfileType"`
	MinimumCount        *int    `json:"minimumCount,omitempty"`
	MaximumCount        *int    `json:"maximumCount,omitempty"`
	EnableFips          *bool   `json:"enableFips,omitempty"` // is always false
}

// profiles converts the workload profiles of an environment.
func (r *reader) profiles(all []WorkloadProfile) []resource.Profile {
	var profiles []resource.Profile
	for i, w := range all {
		p := resource.Profile{Name: or(w.Name, ""), Min: or(w.MinimumCount, 0), Max: or(w.MaximumCount, 0)}
		typ, known := resource.FindProfileType(or(w.WorkloadProfileType, ""))
		if !known {
			var names []string
			for _, t := range resource.ProfileTypes() {
				names = append(names, t.Name)
			}
			r.add(resource.Fault{
				Code: "ManagedEnvironmentInvalidValue", Field: fmt.Sprintf("properties.workloadProfiles[%d].workloadProfileType", i),
				Message: fmt.Sprintf("want one of %s, got %q", strings.Join(names, ", "), or(w.WorkloadProfileType, "")),
			})
			continue
		}
		p.Type = typ.Name
		profiles = append(profiles, p)
	}
	if len(profiles) == len(all) {
		r.add(resource.ValidateProfiles(profiles)...)
	}
	return profiles
}

func newProfiles(profiles []resource.Profile) []WorkloadProfile {
	var all []WorkloadProfile
	for _, p := range profiles {
		w := WorkloadProfile{Name: &p.Name, WorkloadProfileType: &p.Type}
		if t, _ := resource.FindProfileType(p.Type); t.Dedicated {
			w.MinimumCount, w.MaximumCount = &p.Min, &p.Max
		}
		all = append(all, w)
	}
	return all
}

// machineTypes accepts every type but those of machines that this one cannot replace.
func machineTypes(v value) bool {
	s, ok := v.scalar.(string)
	return !ok || !slices.ContainsFunc([]string{"nc", "dc", "consumption-gpu", "flexible"}, func(prefix string) bool {
		return strings.HasPrefix(strings.ToLower(s), prefix)
	})
}

// AvailableProfile is an entry of availableManagedEnvironmentsWorkloadProfileTypes.
type AvailableProfile struct {
	ID         string                     `json:"id"`
	Name       string                     `json:"name"`
	Type       string                     `json:"type"`
	Location   string                     `json:"location"`
	Properties AvailableProfileProperties `json:"properties"`
}

// AvailableProfileProperties has the properties of a type of workload profile.
type AvailableProfileProperties struct {
	Applicability string `json:"applicability"`
	Category      string `json:"category"`
	Cores         int    `json:"cores"`
	DisplayName   string `json:"displayName"`
	GPUs          int    `json:"gpus"`
	MemoryGiB     int    `json:"memoryGiB"`
}

// AvailableProfiles lists the types of workload profile that an environment can have.
func AvailableProfiles(subscription, location string) []AvailableProfile {
	const typ = "availableManagedEnvironmentsWorkloadProfileTypes"
	var all []AvailableProfile
	for _, t := range resource.ProfileTypes() {
		p := AvailableProfile{
			ID:   "/subscriptions/" + subscription + "/providers/Microsoft.App/" + typ + "/" + t.Name,
			Name: t.Name, Type: "Microsoft.App/" + typ, Location: displayRegion(location),
			Properties: AvailableProfileProperties{Applicability: "Custom", Category: t.Category, Cores: t.Cores, DisplayName: "Dedicated-" + t.Name, MemoryGiB: t.MemoryGi},
		}
		if !t.Dedicated {
			p.Properties.Applicability, p.Properties.DisplayName = "LocationDefault", t.Name
		}
		all = append(all, p)
	}
	return all
}

// ProfileState is the state of a dedicated profile.
type ProfileState struct {
	ID         string                 `json:"id"`
	Name       string                 `json:"name"`
	Type       string                 `json:"type"`
	Properties ProfileStateProperties `json:"properties"`
}

// ProfileStateProperties has the number of nodes.
type ProfileStateProperties struct {
	MinimumCount int `json:"minimumCount"`
	MaximumCount int `json:"maximumCount"`
	CurrentCount int `json:"currentCount"`
}

// ProfileStates lists the dedicated profiles of an environment. Each has one node, which is this machine.
func ProfileStates(e resource.Environment) []ProfileState {
	var all []ProfileState
	for _, p := range e.Profiles {
		if t, _ := resource.FindProfileType(p.Type); t.Dedicated {
			id := e.ID.Child("workloadProfileStates", p.Name)
			all = append(all, ProfileState{id.String(), p.Name, id.Type, ProfileStateProperties{p.Min, p.Max, 1}})
		}
	}
	return all
}
