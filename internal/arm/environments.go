package arm

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"penstock/internal/arm/app"
	"penstock/internal/resource"
	"penstock/internal/store"
)

func (c *call) environment() (resource.Environment, error) {
	id := c.environmentID()
	found, err := c.Store.Environments().Get(c.r.Context(), id)
	if errors.Is(err, resource.ErrNotFound) {
		return found, notFound(id)
	}
	return found, err
}

func listEnvironments(c *call) error {
	all, err := c.Store.Environments().List(c.r.Context(), store.Scope{Subscription: c.vars["subscription"], Group: c.vars["group"]})
	if err != nil {
		return err
	}
	var value []app.Environment
	for _, e := range all {
		value = append(value, app.NewEnvironment(e, c.site()))
	}
	c.answer(http.StatusOK, pageOf(value))
	return nil
}

func getEnvironment(c *call) error {
	found, err := c.environment()
	if err != nil {
		return err
	}
	c.answer(http.StatusOK, app.NewEnvironment(found, c.site()))
	return nil
}

func putEnvironment(c *call) error {
	body, err := c.body()
	if err != nil {
		return err
	}
	written, err := c.writeEnvironment(body)
	if err != nil {
		return err
	}
	if err := c.begin(written.Meta, "put"); err != nil {
		return err
	}
	c.answer(http.StatusCreated, app.NewEnvironment(written, c.site()))
	return nil
}

func patchEnvironment(c *call) error {
	found, err := c.environment()
	if err != nil {
		return err
	}
	body, err := c.patched(app.NewEnvironment(found, c.site()))
	if err != nil {
		return err
	}
	written, err := c.writeEnvironment(body)
	if err != nil {
		return err
	}
	if err := c.begin(written.Meta, "patch"); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusAccepted)
	return nil
}

func (c *call) writeEnvironment(body []byte) (resource.Environment, error) {
	was, err := c.Store.Environments().Get(c.r.Context(), c.environmentID())
	id := was.ID // in the spelling that it was made with
	if errors.Is(err, resource.ErrNotFound) {
		id, err = c.environmentID(), nil
	}
	if err != nil {
		return was, err
	}
	wanted, notes, err := app.ReadEnvironment(id, body)
	if err != nil {
		return wanted, err
	}
	if f := resource.ValidateGroupName(id.Group); f != nil {
		return wanted, &resource.InvalidError{Faults: []resource.Fault{*f}}
	}
	now := time.Now().UTC()
	written, err := c.Store.Environments().Put(c.r.Context(), wanted.ID, func(e *resource.Environment, exists bool) error {
		if exists {
			if e.Provisioning == resource.Deleting {
				return refuse(http.StatusConflict, "ManagedEnvironmentOperationInProgress", "The environment '%s' is being deleted; write it again when it has gone.", e.ID.Base())
			}
			if err := sameLocation(e.Meta, wanted.Location); err != nil {
				return err
			}
		}
		e.Meta = nextMeta(e.Meta, wanted.Meta, now)
		e.Stored, e.Provisioning = wanted.Stored, resource.InProgress
		return nil
	})
	if err != nil {
		return written, err
	}
	c.warn(written.ID, notes)
	return written, nil
}

// nextMeta is what is known of a resource after a write. was is zero when it is the first.
func nextMeta(was, wanted resource.Meta, now time.Time) resource.Meta {
	next := resource.Meta{
		ID: was.ID, Location: was.Location, Tags: wanted.Tags,
		Created: was.Created, Modified: now, Generation: was.Generation + 1,
	}
	if was.Generation == 0 {
		next.ID, next.Location, next.Created = wanted.ID, wanted.Location, now
	}
	return next
}

// sameLocation refuses to move a resource, which Azure cannot either.
func sameLocation(was resource.Meta, location string) error {
	if location == "" || app.RegionName(location) == app.RegionName(was.Location) {
		return nil
	}
	return refuse(http.StatusConflict, "InvalidResourceLocation",
		"The resource '%s' already exists in location '%s' in resource group '%s'. A resource with the same name cannot be created in location '%s'. Please select a new resource name.",
		was.ID.Base(), was.Location, was.ID.Group, location)
}

// warn tells in the system log what of a write has no effect.
func (c *call) warn(id resource.ID, notes []string) {
	for _, note := range notes {
		c.System.Append(resource.Event{
			At: time.Now().UTC(), Warning: true, App: id, Reason: "SettingHasNoEffect", Message: note, Source: "ContainerAppController",
		})
	}
}

func deleteEnvironment(c *call) error {
	id := c.environmentID()
	deleted, err := c.Store.Environments().Put(c.r.Context(), id, func(e *resource.Environment, exists bool) error {
		if !exists {
			return errGone
		}
		apps, err := c.appsIn(c.r.Context(), id)
		if err != nil {
			return err
		}
		if len(apps) > 0 {
			return refuse(http.StatusConflict, "ManagedEnvironmentHasContainerApps",
				"The environment '%s' cannot be deleted: %d container apps are in it, the first is '%s'; delete them before.", id.Base(), len(apps), apps[0].ID.Base())
		}
		e.Provisioning = resource.Deleting
		return nil
	})
	if errors.Is(err, errGone) {
		c.w.WriteHeader(http.StatusNoContent)
		return nil
	}
	if err != nil {
		return err
	}
	if err := c.begin(deleted.Meta, "delete"); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusAccepted)
	return nil
}

// errGone stops a change of what is not there.
var errGone = errors.New("there is nothing to delete")

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
