package arm

import (
	"net/http"
	"slices"
	"strings"

	"penstock/internal/arm/app"
	"penstock/internal/store"
)

// defaultSubscription is listed while nothing is in any other.
const defaultSubscription = "00000000-0000-0000-0000-000000000000"

// subscription is a name that things are under. Every name is one: nobody bills by them here.
type subscription struct {
	ID                   string               `json:"id"`
	SubscriptionID       string               `json:"subscriptionId"`
	TenantID             string               `json:"tenantId"`
	DisplayName          string               `json:"displayName"`
	State                string               `json:"state"`
	SubscriptionPolicies subscriptionPolicies `json:"subscriptionPolicies"`
	AuthorizationSource  string               `json:"authorizationSource"`
	ManagedByTenants     []string             `json:"managedByTenants"`
}

type subscriptionPolicies struct {
	LocationPlacementID string `json:"locationPlacementId"`
	QuotaID             string `json:"quotaId"`
	SpendingLimit       string `json:"spendingLimit"`
}

func newSubscription(id string) subscription {
	return subscription{
		ID:                   "/subscriptions/" + id,
		SubscriptionID:       id,
		TenantID:             defaultSubscription,
		DisplayName:          "Penstock",
		State:                "Enabled",
		SubscriptionPolicies: subscriptionPolicies{LocationPlacementID: "Public_2014-09-01", QuotaID: "PayAsYouGo_2014-09-01", SpendingLimit: "Off"},
		AuthorizationSource:  "RoleBased",
		ManagedByTenants:     []string{},
	}
}

func listSubscriptions(c *call) error {
	ids := []string{defaultSubscription}
	environments, err := c.Store.Environments().List(c.r.Context(), store.Scope{})
	if err != nil {
		return err
	}
	for _, e := range environments {
		if !slices.ContainsFunc(ids, func(id string) bool { return strings.EqualFold(id, e.ID.Subscription) }) {
			ids = append(ids, e.ID.Subscription)
		}
	}
	var value []subscription
	for _, id := range ids {
		value = append(value, newSubscription(id))
	}
	c.answer(http.StatusOK, pageOf(value))
	return nil
}

func getSubscription(c *call) error {
	c.answer(http.StatusOK, newSubscription(c.vars["subscription"]))
	return nil
}

// place is a location that clients may choose from.
type place struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	DisplayName string `json:"displayName"`
}

func listLocations(c *call) error {
	var value []place
	for _, name := range app.Regions() {
		short := app.RegionName(name)
		value = append(value, place{"/subscriptions/" + c.vars["subscription"] + "/locations/" + short, short, name})
	}
	c.answer(http.StatusOK, pageOf(value))
	return nil
}

// provider is a namespace of resource types.
type provider struct {
	ID                 string         `json:"id"`
	Namespace          string         `json:"namespace"`
	RegistrationState  string         `json:"registrationState"`
	RegistrationPolicy string         `json:"registrationPolicy"`
	ResourceTypes      []resourceType `json:"resourceTypes"`
}

type resourceType struct {
	ResourceType string   `json:"resourceType"`
	Locations    []string `json:"locations"`
	APIVersions  []string `json:"apiVersions"`
	Capabilities string   `json:"capabilities"`
}

func (c *call) provider() provider {
	newest := slices.Clone(apiVersions)
	slices.Reverse(newest)
	p := provider{
		ID:                 "/subscriptions/" + c.vars["subscription"] + "/providers/" + namespace,
		Namespace:          namespace,
		RegistrationState:  "Registered",
		RegistrationPolicy: "RegistrationRequired",
	}
	tracked := map[string]bool{}
	for _, k := range kinds() {
		tracked[k.typ()] = strings.Count(k.typ(), "/") == 1
	}
	for _, name := range c.types {
		capabilities := "None"
		if tracked[namespace+"/"+name] {
			capabilities = "SupportsTags, SupportsLocation"
		}
		p.ResourceTypes = append(p.ResourceTypes, resourceType{name, app.Regions(), newest, capabilities})
	}
	return p
}

func listProviders(c *call) error {
	c.answer(http.StatusOK, pageOf([]provider{c.provider()}))
	return nil
}

func getProvider(c *call) error {
	if !strings.EqualFold(c.vars["namespace"], namespace) {
		return refuse(http.StatusNotFound, "InvalidResourceNamespace", "The resource namespace '%s' is invalid; want %s.", c.vars["namespace"], namespace)
	}
	c.answer(http.StatusOK, c.provider())
	return nil
}
