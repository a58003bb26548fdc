package arm

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"

	"penstock/internal/arm/app"
	"penstock/internal/resource"
	"penstock/internal/store"
)

// group is a resource group. It exists while something is in it; one that was put exists until it is deleted or the
// server restarts, which makes no difference to what can be put into it.
type group struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Type       string            `json:"type"`
	Location   string            `json:"location"`
	Tags       map[string]string `json:"tags,omitempty"`
	Properties groupProperties   `json:"properties"`
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

// contents are the tracked resources of a subscription, or of one of its groups.
func (c *call) contents(subscription, name string) ([]resource.Meta, error) {
	scope := store.Scope{Subscription: subscription, Group: name}
	var all []resource.Meta
	for _, k := range kinds() {
		if strings.Count(k.typ(), "/") > 1 {
			continue // it is in one that is counted
		}
		found, err := k.metas(c.r.Context(), c.Store, scope)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// allGroups are those of a subscription, by key.
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
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, g := range c.groups {
		if strings.HasPrefix(key, groupKey(subscription, "")) {
			found[key] = g
		}
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
		return refuse(http.StatusBadRequest, "InvalidRequestContent", "The request content is no resource group: %v.", err)
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
	g := newGroup(c.vars["subscription"], c.vars["group"], app.RegionName(wanted.Location), wanted.Tags)
	c.mu.Lock()
	c.groups[key] = g
	c.mu.Unlock()
	c.answer(status, g)
	return nil
}

func deleteGroup(c *call) error {
	if _, err := c.group(); err != nil {
		return err
	}
	contents, err := c.contents(c.vars["subscription"], c.vars["group"])
	if err != nil {
		return err
	}
	if len(contents) > 0 {
		return refuse(http.StatusConflict, "ResourceGroupNotEmpty",
			"Deleting a resource group with what is in it is not built: there are %d resources in '%s', the first is %s '%s'; delete them before.",
			len(contents), c.vars["group"], contents[0].ID.Type, contents[0].ID.Name)
	}
	c.mu.Lock()
	delete(c.groups, groupKey(c.vars["subscription"], c.vars["group"]))
	c.mu.Unlock()
	c.w.WriteHeader(http.StatusOK)
	return nil
}
