package arm

import (
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
		path: "managedEnvironments/{environment}", noun: "environment", code: "ManagedEnvironment",
		table: (*store.Store).Environments,
		meta:  func(e *resource.Environment) *resource.Meta { return &e.Meta },
		read:  app.ReadEnvironment,
		change: func(_ *call, e *resource.Environment, _ bool, wanted *resource.Environment) error {
			e.Stored = wanted.Stored
			return nil
		},
		removable: func(c *call, e resource.Environment) error {
			apps, err := c.appsIn(c.r.Context(), e.ID)
			if err != nil {
				return err
			}
			if len(apps) > 0 {
				return refuse(http.StatusConflict, "ManagedEnvironmentHasContainerApps",
					"The environment '%s' cannot be deleted: %d container apps are in it, the first is '%s'; delete them before.", e.ID.Base(), len(apps), apps[0].ID.Base())
			}
			jobs, err := c.Store.Jobs().List(c.r.Context(), store.Scope{})
			if i := slices.IndexFunc(jobs, func(j resource.Job) bool { return j.Environment.Key() == e.ID.Key() }); err == nil && i >= 0 {
				err = refuse(http.StatusConflict, "ManagedEnvironmentHasContainerAppsJobs",
					"The environment '%s' cannot be deleted: the job '%s' is in it; delete it before.", e.ID.Base(), jobs[i].ID.Base())
			}
			return err
		},
		answer: func(c *call, e resource.Environment) (any, error) { return app.NewEnvironment(e, c.site()), nil },
		put:    http.StatusCreated, patch: http.StatusAccepted,
		operations: "managedEnvironment",
		state:      func(e *resource.Environment) *resource.ProvisioningState { return &e.Provisioning },
		progress: func(e resource.Environment, _ int64) (bool, string) {
			return e.Provisioning != resource.InProgress, ""
		},
	}
}

// warn tells in the system log what of a write has no effect.
func (c *call) warn(id resource.ID, notes []string) {
	for _, note := range notes {
		c.System.Append(resource.Event{
			At: time.Now().UTC(), Warning: true, App: id, Reason: "SettingHasNoEffect", Message: note, Source: "ContainerAppController",
		})
	}
}

// appsIn lists the apps of an environment, in whatever subscription and group they are.
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
