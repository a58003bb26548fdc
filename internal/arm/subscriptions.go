package arm

import (
	"net/http"
	"slices"
	"strings"

	"penstock/internal/arm/app"
	"penstock/internal/store"
)

// defaultSubscription is always listed.
const defaultSubscription = "00000000-0000-0000-0000-000000000000"

// subscription is the JSON of a subscription. Every name is a valid subscription, because none has to be created.
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

// place is the JSON of a location that clients can choose.
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

// providerAnswer is the JSON of a resource provider.
type providerAnswer struct {
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

func (c *call) newProvider(p provider) providerAnswer {
	newest := slices.Clone(apiVersions[p.namespace])
	slices.Reverse(newest)
	answer := providerAnswer{
		ID:                 "/subscriptions/" + c.vars["subscription"] + "/providers/" + p.namespace,
		Namespace:          p.namespace,
		RegistrationState:  "Registered",
		RegistrationPolicy: "RegistrationRequired",
	}
	tracked := map[string]bool{}
	for _, k := range c.kinds {
		tracked[k.typ()] = strings.Count(k.typ(), "/") == 1
	}
	for _, name := range p.types {
		capabilities := "None"
		if tracked[p.namespace+"/"+name] {
			capabilities = "SupportsTags, SupportsLocation"
		}
		answer.ResourceTypes = append(answer.ResourceTypes, resourceType{name, app.Regions(), newest, capabilities})
	}
	return answer
}

func listProviders(c *call) error {
	var value []providerAnswer
	for _, p := range c.providers {
		value = append(value, c.newProvider(p))
	}
	c.answer(http.StatusOK, pageOf(value))
	return nil
}

func getProvider(c *call) error {
	p, err := c.provider(c.vars["namespace"])
	if err != nil {
		return err
	}
	c.answer(http.StatusOK, c.newProvider(p))
	return nil
}
