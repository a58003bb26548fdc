package arm

import (
	"encoding/json"
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
func (c *call) contents(subscription, name string) ([]resource.Meta, error) {
	scope := store.Scope{Subscription: subscription, Group: name}
	var all []resource.Meta
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
	all, err := c.allGroups(c.vars["subscription"])
	if err != nil {
		return err
	}
	var value []group
	for _, key := range slices.Sorted(maps.Keys(all)) {
		value = append(value, all[key])
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

func deleteGroup(c *call) error {
	g, err := c.group()
	if err != nil {
		return err
	}
	if err := c.precondition(true, g.meta); err != nil {
		return err
	}
	contents, err := c.contents(c.vars["subscription"], c.vars["group"])
	if err != nil {
		return err
	}
	if len(contents) > 0 {
		return refuse(http.StatusConflict, "ResourceGroupNotEmpty",
			"Deleting a resource group with its resources is not built: there are %d resources in '%s', the first is %s '%s'; delete them first.",
			len(contents), c.vars["group"], contents[0].ID.Type, contents[0].ID.Name)
	}
	if err := c.Store.Groups().Delete(c.r.Context(), resource.GroupID(c.vars["subscription"], c.vars["group"])); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusOK)
	return nil
}
