package arm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"penstock/internal/arm/app"
	"penstock/internal/resource"
	"penstock/internal/store"
)

func (c *call) app() (resource.App, error) {
	id := c.appID()
	found, err := c.Store.Apps().Get(c.r.Context(), id)
	if errors.Is(err, resource.ErrNotFound) {
		return found, notFound(id)
	}
	return found, err
}

// domain is that of an environment, "" while it has none.
func (c *call) domain(environment resource.ID) (string, error) {
	e, err := c.Store.Environments().Get(c.r.Context(), environment)
	if err != nil && !errors.Is(err, resource.ErrNotFound) {
		return "", err
	}
	return e.DefaultDomain, nil
}

func (c *call) appAnswer(a resource.App) (app.ContainerApp, error) {
	domain, err := c.domain(a.Environment)
	return app.NewContainerApp(a, domain, c.site()), err
}

func listApps(c *call) error {
	all, err := c.Store.Apps().List(c.r.Context(), store.Scope{Subscription: c.vars["subscription"], Group: c.vars["group"]})
	if err != nil {
		return err
	}
	environments, err := c.Store.Environments().List(c.r.Context(), store.Scope{})
	if err != nil {
		return err
	}
	domains := map[string]string{}
	for _, e := range environments {
		domains[e.ID.Key()] = e.DefaultDomain
	}
	var value []app.ContainerApp
	for _, a := range all {
		value = append(value, app.NewContainerApp(a, domains[a.Environment.Key()], c.site()))
	}
	c.answer(http.StatusOK, pageOf(value))
	return nil
}

func getApp(c *call) error {
	found, err := c.app()
	if err != nil {
		return err
	}
	answer, err := c.appAnswer(found)
	if err != nil {
		return err
	}
	c.answer(http.StatusOK, answer)
	return nil
}

func putApp(c *call) error {
	body, err := c.body()
	if err != nil {
		return err
	}
	written, err := c.writeApp(body)
	if err != nil {
		return err
	}
	answer, err := c.appAnswer(written)
	if err != nil {
		return err
	}
	if err := c.begin(written.Meta, "put"); err != nil {
		return err
	}
	// Azure answers 201 to the first write and to every later one.
	c.answer(http.StatusCreated, answer)
	return nil
}

func patchApp(c *call) error {
	found, err := c.app()
	if err != nil {
		return err
	}
	answer, err := c.appAnswer(found)
	if err != nil {
		return err
	}
	body, err := c.patched(answer)
	if err != nil {
		return err
	}
	written, err := c.writeApp(body)
	if err != nil {
		return err
	}
	if err := c.begin(written.Meta, "patch"); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusAccepted)
	return nil
}

// writeApp checks what was sent as far as it can be checked now, and keeps it.
func (c *call) writeApp(body []byte) (resource.App, error) {
	ctx := c.r.Context()
	was, err := c.Store.Apps().Get(ctx, c.appID())
	id := was.ID // in the spelling that it was made with
	if errors.Is(err, resource.ErrNotFound) {
		id, err = c.appID(), nil
	}
	if err != nil {
		return was, err
	}
	wanted, notes, err := app.ReadApp(id, body)
	if err != nil {
		return wanted, err
	}
	if f := resource.ValidateGroupName(id.Group); f != nil {
		return wanted, &resource.InvalidError{Faults: []resource.Fault{*f}}
	}
	// A write that does not touch the template needs no registry.
	if !was.Template.Equal(wanted.Template) {
		if err := c.checkImages(ctx, wanted.Template); err != nil {
			return wanted, err
		}
	}
	now := time.Now().UTC()
	written, err := c.Store.Apps().Put(ctx, wanted.ID, func(a *resource.App, exists bool) error {
		environment, err := c.checkPlace(ctx, *a, exists, wanted)
		if err != nil {
			return err
		}
		if err := c.checkSuffix(ctx, *a, wanted); err != nil {
			return err
		}
		if err := c.checkTraffic(ctx, wanted); err != nil {
			return err
		}
		secrets, err := c.seal(*a, wanted)
		if err != nil {
			return err
		}
		// az fills the environment's location in; other clients must send one and do.
		wanted.Location = cmp.Or(wanted.Location, environment.Location)
		a.Meta = nextMeta(a.Meta, wanted.Meta, now)
		a.Environment = environment.ID
		a.Configuration, a.Template, a.Stored = wanted.Configuration, wanted.Template, wanted.Stored
		a.Configuration.Secrets = secrets
		a.Provisioning, a.ProvisioningError = resource.InProgress, ""
		return nil
	})
	if err != nil {
		return written, err
	}
	c.warn(written.ID, notes)
	if !slices.Equal(was.Shares(), written.Shares()) && was.Generation > 0 {
		c.tellTraffic(written)
	}
	return written, nil
}

// checkPlace finds the environment of an app and whether it can be there. It runs where no other write does.
func (c *call) checkPlace(ctx context.Context, was resource.App, exists bool, wanted resource.App) (resource.Environment, error) {
	name := wanted.ID.Base()
	if exists {
		if was.Provisioning == resource.Deleting {
			return resource.Environment{}, beingDeleted(was)
		}
		if was.Environment.Key() != wanted.Environment.Key() {
			return resource.Environment{}, refuse(http.StatusBadRequest, "ContainerAppInvalidValue",
				"properties.environmentId: the container app '%s' is in the environment '%s' and cannot move; want that one, got '%s'.", name, was.Environment, wanted.Environment)
		}
		if err := sameLocation(was.Meta, wanted.Location); err != nil {
			return resource.Environment{}, err
		}
	}
	environment, err := c.Store.Environments().Get(ctx, wanted.Environment)
	switch {
	case errors.Is(err, resource.ErrNotFound):
		return environment, refuse(http.StatusBadRequest, "ManagedEnvironmentNotFound", "properties.environmentId: there is no environment '%s'; make it first.", wanted.Environment)
	case err != nil:
		return environment, err
	case environment.Provisioning == resource.Deleting:
		return environment, refuse(http.StatusConflict, "ManagedEnvironmentOperationInProgress", "The environment '%s' is being deleted.", environment.ID.Base())
	case exists:
		return environment, nil
	}
	others, err := c.appsIn(ctx, environment.ID)
	if err != nil {
		return environment, err
	}
	for _, other := range others {
		if strings.EqualFold(other.ID.Base(), name) {
			return environment, refuse(http.StatusConflict, "ContainerAppNameInUse",
				"The environment '%s' has a container app '%s' already, in resource group '%s'; both would have the same host name.", environment.ID.Base(), name, other.ID.Group)
		}
	}
	return environment, nil
}

// checkSuffix refuses a revision name that is taken by another template.
func (c *call) checkSuffix(ctx context.Context, was, wanted resource.App) error {
	suffix := wanted.Template.RevisionSuffix
	if suffix == "" {
		return nil
	}
	name := wanted.ID.Base() + "--" + suffix
	if name == was.LatestRevision && was.Template.Equal(wanted.Template) {
		return nil
	}
	_, err := c.Store.Revisions().Get(ctx, wanted.ID.Child("revisions", name))
	if errors.Is(err, resource.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return &resource.InvalidError{Faults: []resource.Fault{{
		Code: "ContainerAppInvalidRevisionName", Field: "template.revisionSuffix",
		Message: fmt.Sprintf("there is a revision %q with another template already; want another suffix, or none", name),
	}}}
}

// checkImages refuses a template with an image that cannot be had, in the words of Azure.
func (c *call) checkImages(ctx context.Context, t resource.Template) error {
	var faults []resource.Fault
	check := func(list string, i int, container resource.Container) {
		_, err := c.Images.Digest(ctx, container.Image)
		if err == nil {
			return
		}
		cause := err.Error()
		if errors.Is(err, resource.ErrNotFound) {
			cause = "MANIFEST_UNKNOWN: manifest unknown; " + cause
		}
		faults = append(faults, resource.Fault{
			Code:  "InvalidParameterValueInContainerTemplate",
			Field: fmt.Sprintf("template.%s[%d].image", list, i),
			Message: fmt.Sprintf("The following field(s) are either invalid or missing. Field 'template.%s.%s.image' is invalid with details: 'Invalid value: \"%s\": %s'",
				list, container.Name, container.Image, cause),
		})
	}
	for i, container := range t.Containers {
		check("containers", i, container)
	}
	for i, container := range t.InitContainers {
		check("initContainers", i, container)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if len(faults) > 0 {
		return &resource.InvalidError{Faults: faults}
	}
	return nil
}

func deleteApp(c *call) error {
	deleted, err := c.Store.Apps().Put(c.r.Context(), c.appID(), func(a *resource.App, exists bool) error {
		if !exists {
			return errGone
		}
		a.Provisioning = resource.Deleting
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
