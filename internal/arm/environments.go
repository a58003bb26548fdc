package arm

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"penstock/internal/arm/app"
	"penstock/internal/resource"
	"penstock/internal/store"
)

func environmentKind() kind[resource.Environment] {
	return kind[resource.Environment]{
		resourceType: resource.TypeEnvironment, vars: []string{"environment"}, noun: "environment", code: "ManagedEnvironment",
		table: func(s *store.Store) documents[resource.Environment] { return s.Environments() },
		meta:  func(e *resource.Environment) *resource.Meta { return &e.Meta },
		read:  app.ReadEnvironment,
		change: func(c *call, e *resource.Environment, exists bool, wanted *resource.Environment) error {
			if exists {
				if err := c.checkProfiles(*e, *wanted); err != nil {
					return err
				}
			}
			e.Stored, e.Profiles, e.Ingress = wanted.Stored, wanted.Profiles, wanted.Ingress
			return nil
		},
		removable: func(c *call, e resource.Environment) error {
			apps, err := c.appsIn(c.r.Context(), e.ID)
			if err != nil {
				return err
			}
			if len(apps) > 0 {
				return refuse(http.StatusConflict, "ManagedEnvironmentHasContainerApps",
					"The environment '%s' cannot be deleted: %d container apps are in it, the first is '%s'; delete them first.", e.ID.Base(), len(apps), apps[0].ID.Base())
			}
			jobs, err := c.jobsIn(c.r.Context(), e.ID)
			if err == nil && len(jobs) > 0 {
				err = refuse(http.StatusConflict, "ManagedEnvironmentHasContainerAppsJobs",
					"The environment '%s' cannot be deleted: the job '%s' is in it; delete it first.", e.ID.Base(), jobs[0].ID.Base())
			}
			return err
		},
		answer: func(c *call, e resource.Environment) (any, error) { return app.NewEnvironment(e, c.site()), nil },
		put:    http.StatusCreated, patch: http.StatusAccepted,
		operations: "managedEnvironment",
		progress:   func(e resource.Environment) resource.Progress { return e.Progress },
	}
}

// checkProfiles refuses to remove a workload profile that an app uses, or to make it too small for the app.
func (c *call) checkProfiles(was, wanted resource.Environment) error {
	if slices.Equal(was.Profiles, wanted.Profiles) {
		return nil
	}
	apps, err := c.appsIn(c.r.Context(), was.ID)
	if err != nil {
		return err
	}
	jobs, err := c.jobsIn(c.r.Context(), was.ID)
	if err != nil {
		return err
	}
	need := func(noun string, id resource.ID, profile string, t resource.Template) error {
		faults := resource.ValidateProfile(profile, t, wanted)
		if len(faults) == 0 {
			return nil
		}
		return refuse(http.StatusConflict, "ManagedEnvironmentWorkloadProfileInUse",
			"properties.workloadProfiles: the %s '%s' needs its workload profile '%s' as it is: %s", noun, id.Base(), cmp.Or(profile, resource.Consumption), faults[0])
	}
	for _, a := range apps {
		if err := need("container app", a.ID, a.Profile, a.Template); err != nil {
			return err
		}
	}
	for _, j := range jobs {
		if err := need("job", j.ID, j.Profile, j.Template); err != nil {
			return err
		}
	}
	return nil
}

// warn writes an event for the parts of a write that have no effect.
func (c *call) warn(id resource.ID, notes []string) {
	for _, note := range notes {
		c.System.Append(resource.Event{
			At: time.Now().UTC(), Warning: true, App: id, Reason: "SettingHasNoEffect", Message: note, Source: "ContainerAppController",
		})
	}
}

// appsIn lists the apps of an environment, in all subscriptions and groups.
func (a *api) appsIn(ctx context.Context, environment resource.ID) ([]resource.App, error) {
	all, err := a.Store.Apps().List(ctx, store.Scope{})
	if err != nil {
		return nil, fmt.Errorf("find the apps of environment %s: %w", environment.Base(), err)
	}
	var in []resource.App
	for _, found := range all {
		if found.Environment.Key() == environment.Key() {
			in = append(in, found)
		}
	}
	return in, nil
}

// jobsIn lists the jobs of an environment, in all subscriptions and groups.
func (a *api) jobsIn(ctx context.Context, environment resource.ID) ([]resource.Job, error) {
	all, err := a.Store.Jobs().List(ctx, store.Scope{})
	if err != nil {
		return nil, fmt.Errorf("find the jobs of environment %s: %w", environment.Base(), err)
	}
	return slices.DeleteFunc(all, func(j resource.Job) bool { return j.Environment.Key() != environment.Key() }), nil
}
