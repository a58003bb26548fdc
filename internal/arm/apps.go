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

func appKind() kind[resource.App] {
	return kind[resource.App]{
		resourceType: resource.TypeApp, vars: []string{"app"}, noun: "container app", code: "ContainerApp",
		table: func(s *store.Store) documents[resource.App] { return s.Apps() },
		meta:  func(a *resource.App) *resource.Meta { return &a.Meta },
		read:  app.ReadApp,
		check: func(c *call, was, wanted resource.App) error {
			if was.Template.Equal(wanted.Template) {
				return nil // a write that does not touch the template needs no registry
			}
			// The registries' passwords are those that the app will have after the write.
			var err error
			if wanted.Configuration.Secrets, err = c.seal(wanted.ID, was.Configuration.Secrets, wanted.Configuration.Secrets, wanted.Template); err != nil {
				return err
			}
			return c.checkImages(c.r.Context(), wanted.Keyring(), wanted.Template)
		},
		change: changeApp,
		changed: func(c *call, was, now resource.App) {
			if !slices.Equal(was.Shares(), now.Shares()) && was.Generation > 0 {
				c.tellTraffic(now)
			}
			c.tellChangedSecrets(was, now)
			c.tellRemovedDomains(was, now)
		},
		answer: func(c *call, a resource.App) (any, error) {
			domain, err := c.domain(a.Environment)
			return app.NewContainerApp(a, domain, c.site()), err
		},
		// Azure answers 201 to the first write and to every later one.
		put: http.StatusCreated, patch: http.StatusAccepted,
		operations: "containerapp",
		progress:   func(a resource.App) resource.Progress { return a.Progress },
	}
}

func (c *call) app() (resource.App, error) { return appKind().find(c) }

// domain returns the domain of an environment, or "" while it has none. It remembers it for the rest of the request,
// because a list needs the same one often.
func (c *call) domain(environment resource.ID) (string, error) {
	if domain, known := c.domains[environment]; known {
		return domain, nil
	}
	e, err := c.Store.Environments().Get(c.r.Context(), environment)
	if err != nil && !errors.Is(err, resource.ErrNotFound) {
		return "", err
	}
	if c.domains == nil {
		c.domains = map[resource.ID]string{}
	}
	c.domains[environment] = e.DefaultDomain
	return e.DefaultDomain, nil
}

// changeApp copies what is wanted into an app.
func changeApp(c *call, a *resource.App, exists bool, wanted *resource.App) error {
	ctx := c.r.Context()
	environment, err := c.checkPlace(ctx, *a, exists, *wanted)
	if err != nil {
		return err
	}
	if err := c.checkSuffix(ctx, *a, *wanted); err != nil {
		return err
	}
	if err := c.checkTraffic(ctx, *wanted); err != nil {
		return err
	}
	if err := c.checkDomains(ctx, environment, *wanted); err != nil {
		return err
	}
	if err := c.checkPorts(ctx, *wanted); err != nil {
		return err
	}
	settings, err := environment.Settings(wanted.Tags)
	if err != nil {
		return err
	}
	wanted.Template.SetDefaultResources(settings.Behaviour)
	if faults := resource.ValidateProfile(wanted.Profile, wanted.Template, environment); len(faults) > 0 {
		return &resource.InvalidError{Faults: faults}
	}
	if err := c.checkStorages(ctx, environment.ID, wanted.Template); err != nil {
		return err
	}
	secrets, err := c.seal(wanted.ID, a.Configuration.Secrets, wanted.Configuration.Secrets, wanted.Template)
	if err != nil {
		return err
	}
	// az fills in the location of the environment. Other clients must send a location, and do.
	wanted.Location = cmp.Or(wanted.Location, environment.Location)
	a.Environment, a.Profile = environment.ID, wanted.Profile
	a.Configuration, a.Template, a.Stored = wanted.Configuration, wanted.Template, wanted.Stored
	a.Configuration.Secrets = secrets
	return nil
}

// checkPlace finds the environment of an app and checks whether the app can be in it. No other write happens meanwhile.
func (c *call) checkPlace(ctx context.Context, was resource.App, exists bool, wanted resource.App) (resource.Environment, error) {
	name := wanted.ID.Base()
	environment, err := c.environmentOf(ctx, "container app", name, was.Environment, wanted.Environment)
	if err != nil || exists {
		return environment, err
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

// environmentOf finds the environment that an app or a job will be in. was is the one that it is in now, and zero when it
// is new.
func (c *call) environmentOf(ctx context.Context, noun, name string, was, wanted resource.ID) (resource.Environment, error) {
	if !was.IsZero() && was.Key() != wanted.Key() {
		return resource.Environment{}, refuse(http.StatusBadRequest, "ContainerAppInvalidValue",
			"properties.environmentId: the %s '%s' is in the environment '%s' and cannot move; want that one, got '%s'.", noun, name, was, wanted)
	}
	environment, err := c.Store.Environments().Get(ctx, wanted)
	switch {
	case errors.Is(err, resource.ErrNotFound):
		return environment, refuse(http.StatusBadRequest, "ManagedEnvironmentNotFound", "properties.environmentId: there is no environment '%s'; create it first.", wanted)
	case err != nil:
		return environment, err
	case !environment.Deleted.IsZero():
		return environment, refuse(http.StatusConflict, "ManagedEnvironmentOperationInProgress", "The environment '%s' is being deleted.", environment.ID.Base())
	}
	return environment, nil
}

// checkSuffix refuses a revision suffix that a revision with another template has.
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
		Message: fmt.Sprintf("the revision %q exists with another template; want another suffix, or none", name),
	}}}
}

// imagesLimit bounds how long a write waits for registries to resolve its images.
const imagesLimit = 20 * time.Second

// checkImages refuses a template with an image that does not exist or cannot be pulled, in Azure's words.
func (c *call) checkImages(ctx context.Context, keys resource.Keyring, t resource.Template) error {
	asking, cancel := context.WithTimeout(ctx, imagesLimit)
	defer cancel()
	var faults []resource.Fault
	check := func(list string, i int, container resource.Container) {
		_, err := c.Images.Digest(asking, keys, container.Image)
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
