package arm

import (
	"errors"
	"math"
	"net/http"

	"penstock/internal/arm/app"
	"penstock/internal/resource"
	"penstock/internal/store"
)

// usage is the JSON of a quota: the current amount and the limit.
type usage struct {
	Name         usageName `json:"name"`
	CurrentValue float64   `json:"currentValue"`
	Limit        float64   `json:"limit"`
	Unit         string    `json:"unit"`
}

type usageName struct {
	Value          string `json:"value"`
	LocalizedValue string `json:"localizedValue"`
}

// noLimit is the limit of quotas that have none here. The JSON has no value for that.
const noLimit = math.MaxInt32

// listUsages lists the quotas of a subscription in a location.
func listUsages(c *call) error {
	environments, err := c.Store.Environments().List(c.r.Context(), store.Scope{Subscription: c.vars["subscription"]})
	if err != nil {
		return err
	}
	n := 0
	for _, e := range environments {
		if app.RegionName(e.Location) == app.RegionName(c.vars["location"]) {
			n++
		}
	}
	c.answer(http.StatusOK, pageOf([]usage{
		{usageName{"ManagedEnvironmentCount", "Managed Environment Count"}, float64(n), noLimit, "Count"},
	}))
	return nil
}

// listEnvironmentUsages lists how many vCPUs the replicas of an environment have, by the category of their profile. The
// limit is that of the machine. The sum can be larger, because vCPUs are limits and not reserved.
func listEnvironmentUsages(c *call) error {
	e, err := environmentKind().find(c)
	if err != nil {
		return err
	}
	apps, err := c.appsIn(c.r.Context(), e.ID)
	if err != nil {
		return err
	}
	jobs, err := c.jobsIn(c.r.Context(), e.ID)
	if err != nil {
		return err
	}
	profiles := map[string]string{}
	for _, a := range apps {
		profiles[a.ID.Key()] = a.Profile
	}
	for _, j := range jobs {
		profiles[j.ID.Key()] = j.Profile
	}
	running, err := c.Runtime.Replicas(c.r.Context())
	if err != nil {
		return err
	}
	used := map[string]int64{}
	for _, r := range running {
		name, here := profiles[r.Revision.Parent().Key()]
		if !here {
			continue
		}
		template, err := c.template(r.Revision)
		if err != nil {
			return err
		}
		profile, _ := e.ProfileOf(name)
		for _, container := range template.Containers {
			used[profile.Category] += container.Resources.MilliCPU
		}
	}
	var all []usage
	for _, kind := range []struct{ category, name, words string }{
		{resource.Consumption, "ManagedEnvironmentConsumptionCores", "Managed Environment Consumption Cores"},
		{"GeneralPurpose", "ManagedEnvironmentGeneralPurposeCores", "Managed Environment General Purpose Cores"},
		{"MemoryOptimized", "ManagedEnvironmentMemoryOptimizedCores", "Managed Environment Memory Optimized Cores"},
	} {
		all = append(all, usage{usageName{kind.name, kind.words}, float64(used[kind.category]) / 1000, float64(c.Cores), "Count"})
	}
	c.answer(http.StatusOK, pageOf(all))
	return nil
}

// template returns the template of a revision or an execution. It is empty when that has been deleted.
func (c *call) template(id resource.ID) (resource.Template, error) {
	var rev resource.Revision
	var err error
	if id.Is(resource.TypeExecution) {
		var e resource.Execution
		e, err = c.Store.Executions().Get(c.r.Context(), id)
		rev = e.Revision()
	} else {
		rev, err = c.Store.Revisions().Get(c.r.Context(), id)
	}
	if errors.Is(err, resource.ErrNotFound) {
		err = nil
	}
	return rev.Template, err
}

func listProfileTypes(c *call) error {
	c.answer(http.StatusOK, pageOf(app.AvailableProfiles(c.vars["subscription"], c.vars["location"])))
	return nil
}

func listProfileStates(c *call) error {
	e, err := environmentKind().find(c)
	if err != nil {
		return err
	}
	c.answer(http.StatusOK, pageOf(app.ProfileStates(e)))
	return nil
}
