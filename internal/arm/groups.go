package arm

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"penstock/internal/arm/app"
	"penstock/internal/resource"
	"penstock/internal/store"
)

// group is the JSON of a resource group. A group exists while a resource is in it, or from its PUT until its DELETE.
type group struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Type       string            `json:"type"`
	Location   string            `json:"location"`
	Tags       map[string]string `json:"tags,omitempty"`
	Properties groupProperties   `json:"properties"`

	meta resource.Meta // zero for a group that is there because of its resources only
}

type groupProperties struct {
	ProvisioningState string `json:"provisioningState"`
}

func newGroup(subscription, name, location string, tags map[string]string) group {
	return group{
		ID:         "/subscriptions/" + subscription + "/resourceGroups/" + name,
		Name:       name,
		Type:       "Microsoft.Resources/resourceGroups",
		Location:   location,
		Tags:       tags,
		Properties: groupProperties{"Succeeded"},
	}
}

func groupKey(subscription, name string) string { return strings.ToLower(subscription + "/" + name) }

// contents returns the tracked resources of a subscription, or of one of its groups.
func (c *call) contents(subscription, name string) ([]entry, error) {
	scope := store.Scope{Subscription: subscription, Group: name}
	var all []entry
	for _, k := range c.kinds {
		if strings.Count(k.typ(), "/") > 1 {
			continue // its parent is counted
		}
		found, err := k.metas(c.r.Context(), c.Store, scope)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// allGroups returns the groups of a subscription, by key.
func (c *call) allGroups(subscription string) (map[string]group, error) {
	found := map[string]group{}
	contents, err := c.contents(subscription, "")
	if err != nil {
		return nil, err
	}
	for _, m := range contents {
		key := groupKey(m.ID.Subscription, m.ID.Group)
		if _, ok := found[key]; !ok {
			found[key] = newGroup(m.ID.Subscription, m.ID.Group, m.Location, nil)
		}
	}
	made, err := c.Store.Groups().List(c.r.Context(), store.Scope{Subscription: subscription})
	if err != nil {
		return nil, err
	}
	for _, g := range made {
		one := newGroup(g.ID.Subscription, g.ID.Group, g.Location, g.Tags)
		one.meta = g.Meta
		if !g.Deleted.IsZero() {
			one.Properties.ProvisioningState = string(resource.Deleting)
		}
		found[groupKey(g.ID.Subscription, g.ID.Group)] = one
	}
	return found, nil
}

func (c *call) group() (group, error) {
	all, err := c.allGroups(c.vars["subscription"])
	if err != nil {
		return group{}, err
	}
	g, ok := all[groupKey(c.vars["subscription"], c.vars["group"])]
	if !ok {
		return g, refuse(http.StatusNotFound, "ResourceGroupNotFound", "Resource group '%s' could not be found.", c.vars["group"])
	}
	return g, nil
}

func listGroups(c *call) error {
	keep, err := c.metaFilter("name", "location")
	if err != nil {
		return err
	}
	all, err := c.allGroups(c.vars["subscription"])
	if err != nil {
		return err
	}
	var value []group
	for _, key := range slices.Sorted(maps.Keys(all)) {
		g := all[key]
		if keep(resource.Meta{ID: resource.ID{Name: g.Name}, Location: g.Location, Tags: g.Tags}) {
			value = append(value, g)
		}
	}
	c.answer(http.StatusOK, pageOf(value))
	return nil
}

func getGroup(c *call) error {
	g, err := c.group()
	if err != nil {
		return err
	}
	c.written = &g.meta
	c.answer(http.StatusOK, g)
	return nil
}

func headGroup(c *call) error {
	if _, err := c.group(); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

func putGroup(c *call) error {
	body, err := c.body()
	if err != nil {
		return err
	}
	var wanted struct {
		Location string            `json:"location"`
		Tags     map[string]string `json:"tags"`
	}
	if err := json.Unmarshal(body, &wanted); err != nil {
		return refuse(http.StatusBadRequest, "InvalidRequestContent", "The request content is not a resource group: %v.", err)
	}
	faults := resource.ValidateTags(wanted.Tags)
	if f := resource.ValidateGroupName(c.vars["group"]); f != nil {
		faults = append(faults, *f)
	}
	if wanted.Location == "" {
		faults = append(faults, resource.Fault{Code: "LocationRequired", Field: "location", Message: "want the name of a region, as in koreacentral, got nothing"})
	}
	if len(faults) > 0 {
		return &resource.InvalidError{Faults: faults}
	}
	known, err := c.allGroups(c.vars["subscription"])
	if err != nil {
		return err
	}
	key, status := groupKey(c.vars["subscription"], c.vars["group"]), http.StatusCreated
	if _, exists := known[key]; exists {
		status = http.StatusOK
	}
	id := resource.GroupID(c.vars["subscription"], c.vars["group"])
	written, err := c.Store.Groups().Put(c.r.Context(), id, func(g *resource.Group, exists bool) error {
		if err := c.undeletedGroup(id.Subscription, id.Group); err != nil {
			return err
		}
		location := app.RegionName(wanted.Location)
		if err := c.precondition(status == http.StatusOK, g.Meta); err != nil {
			return err
		}
		if exists {
			if err := sameLocation(g.Meta, location); err != nil {
				return err
			}
		}
		g.Meta = nextMeta(g.Meta, resource.Meta{ID: id, Location: location, Tags: wanted.Tags}, time.Now().UTC())
		return nil
	})
	if err != nil {
		return err
	}
	c.written = &written.Meta
	c.answer(status, newGroup(written.ID.Subscription, written.ID.Group, written.Location, written.Tags))
	return nil
}

// deleteGroup marks the group and all that is in it as deleted. Reconcile removes the apps and jobs, then the environments,
// then the group.
func deleteGroup(c *call) error {
	found, err := c.group()
	if err != nil {
		return err
	}
	id := resource.GroupID(c.vars["subscription"], c.vars["group"])
	var op store.Operation
	var touch []resource.ID
	err = c.Store.DeleteGroup(c.r.Context(), id, func(g *resource.Group, exists bool) error {
		if !exists {
			g.Meta = nextMeta(g.Meta, resource.Meta{ID: id, Location: found.Location}, time.Now().UTC())
		}
		if err := c.precondition(true, g.Meta); err != nil {
			return err
		}
		if err := c.separable(id); err != nil {
			return err
		}
		contents, err := c.contents(id.Subscription, id.Group)
		if err != nil {
			return err
		}
		touch = touch[:0]
		for _, m := range contents {
			touch = append(touch, m.ID)
		}
		if g.Deleted.IsZero() {
			g.Deleted = time.Now().UTC()
		}
		return nil
	}, func(g resource.Group) store.Operation {
		op = newOperation(g.Meta, "delete")
		return op
	})
	if err != nil {
		return err
	}
	for _, id := range append(touch, id) {
		c.Reconcile(id)
	}
	h := c.w.Header()
	h.Set("Location", fmt.Sprintf("%s/subscriptions/%s/operationresults/%s?api-version=%s", c.endpoint(), id.Subscription, op.ID, c.r.URL.Query().Get("api-version")))
	h.Set("Retry-After", "1")
	c.w.WriteHeader(http.StatusAccepted)
	return nil
}

// separable refuses to delete a group while an app or a job of another group is in one of its environments.
func (c *call) separable(group resource.ID) error {
	environments, err := c.Store.Environments().List(c.r.Context(), store.Scope{Subscription: group.Subscription, Group: group.Group})
	if err != nil {
		return err
	}
	for _, e := range environments {
		var in []resource.ID
		apps, err := c.appsIn(c.r.Context(), e.ID)
		if err != nil {
			return err
		}
		for _, a := range apps {
			in = append(in, a.ID)
		}
		jobs, err := c.jobsIn(c.r.Context(), e.ID)
		if err != nil {
			return err
		}
		for _, j := range jobs {
			in = append(in, j.ID)
		}
		for _, other := range in {
			if groupKey(other.Subscription, other.Group) != groupKey(group.Subscription, group.Group) {
				return refuse(http.StatusConflict, "ResourceGroupDeletionBlocked",
					"Deletion of resource group '%s' failed: '%s' of the resource group '%s' is in its environment '%s'; delete that first.",
					group.Group, other, other.Group, e.ID.Base())
			}
		}
	}
	return nil
}

// undeletedGroup refuses a write in a group that is being deleted. It is called inside the transaction of the write.
func (c *call) undeletedGroup(subscription, name string) error {
	g, err := c.Store.Groups().Get(c.r.Context(), resource.GroupID(subscription, name))
	if errors.Is(err, resource.ErrNotFound) {
		return nil
	}
	if err == nil && !g.Deleted.IsZero() {
		err = refuse(http.StatusConflict, "ResourceGroupBeingDeleted",
			"The resource group '%s' is in deprovisioning state and cannot perform this operation; write again when it is gone.", name)
	}
	return err
}

// getGroupResult answers the polls of the deletion of a group.
func getGroupResult(c *call) error {
	op, err := c.operation()
	if err != nil {
		return err
	}
	if !op.Resource.Is(resource.TypeGroup) {
		return refuse(http.StatusNotFound, "OperationNotFound", "The operation '%s' is not one of a resource group.", op.ID)
	}
	g, err := c.Store.Groups().Get(c.r.Context(), op.Resource)
	switch {
	case errors.Is(err, resource.ErrNotFound):
	case err != nil:
		return err
	case !g.Deleted.IsZero() && !g.Deleted.After(op.Started):
		c.w.Header().Set("Location", c.endpoint()+c.r.URL.RequestURI())
		c.w.Header().Set("Retry-After", "1")
		c.w.WriteHeader(http.StatusAccepted)
		return nil
	}
	c.w.WriteHeader(http.StatusOK)
	return nil
}
