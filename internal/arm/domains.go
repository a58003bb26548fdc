package arm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"penstock/internal/arm/app"
	"penstock/internal/resource"
	"penstock/internal/store"
)

// getVerificationID answers with the value that the owner of a domain puts in a TXT record. The answer is a bare string.
func getVerificationID(c *call) error {
	c.answer(http.StatusOK, app.VerificationID(c.vars["subscription"]))
	return nil
}

// lookupTime bounds all DNS queries of one analysis together.
const lookupTime = 5 * time.Second

var hostNameForm = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// hostAnalysis says whether a host name can be used for an app.
type hostAnalysis struct {
	HostName                      string   `json:"hostName"`
	IsHostnameAlreadyVerified     bool     `json:"isHostnameAlreadyVerified"`
	CustomDomainVerificationTest  string   `json:"customDomainVerificationTest"`
	FailureInfo                   *problem `json:"customDomainVerificationFailureInfo,omitempty"`
	HasConflictOnEnvironment      bool     `json:"hasConflictOnManagedEnvironment"`
	ConflictWithEnvironmentDomain bool     `json:"conflictWithEnvironmentCustomDomain"`
	ConflictingApp                string   `json:"conflictingContainerAppResourceId,omitempty"`
	CNAMERecords                  []string `json:"cNameRecords"`
	TXTRecords                    []string `json:"txtRecords"`
	ARecords                      []string `json:"aRecords"`
	AlternateCNAMERecords         []string `json:"alternateCNameRecords"`
	AlternateTXTRecords           []string `json:"alternateTxtRecords"`
}

// analyseHost says whether a write would take a host name for an app, and what DNS has of it, as far as the name servers
// answer in time.
func analyseHost(c *call) error {
	found, err := c.app()
	if err != nil {
		return err
	}
	name := strings.ToLower(strings.TrimSuffix(c.r.URL.Query().Get("customHostname"), "."))
	if len(name) > 253 || !hostNameForm.MatchString(name) {
		return refuse(http.StatusBadRequest, "InvalidCustomHostName", "customHostname: want a host name, as in api.contoso.com, got '%s'.", c.r.URL.Query().Get("customHostname"))
	}
	a := hostAnalysis{HostName: name}
	if err := c.findConflict(&a, found); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.r.Context(), lookupTime)
	defer cancel()
	// The records are for people to see. Names that machines resolve without DNS have none.
	if canonical, err := c.Resolver.LookupCNAME(ctx, name); err == nil {
		if canonical = strings.ToLower(strings.TrimSuffix(canonical, ".")); canonical != name {
			a.CNAMERecords = append(a.CNAMERecords, canonical)
		}
	}
	a.ARecords, _ = c.Resolver.LookupHost(ctx, name)
	a.TXTRecords, _ = c.Resolver.LookupTXT(ctx, "asuid."+name)
	id := app.VerificationID(found.ID.Subscription)
	a.IsHostnameAlreadyVerified = slices.ContainsFunc(a.TXTRecords, func(s string) bool { return strings.EqualFold(s, id) })
	// The verdict is that of a write, which needs no record: az adds no name that did not pass.
	wanted := resource.App{Meta: resource.Meta{ID: found.ID}}
	wanted.Configuration.Ingress = &resource.Ingress{Domains: []resource.CustomDomain{{Name: name}}}
	err = c.checkDomains(c.r.Context(), resource.Environment{}, wanted)
	refused, isRefused := errors.AsType[*resource.InvalidError](err)
	switch {
	case isRefused:
		a.CustomDomainVerificationTest = "Failed"
		a.FailureInfo = &problem{Code: refused.Faults[0].Code, Message: refused.Faults[0].Message}
	case err != nil:
		return err
	default:
		a.CustomDomainVerificationTest = "Passed"
	}
	c.answer(http.StatusOK, a)
	return nil
}

// findConflict says whether another app or an environment already has the name.
func (c *call) findConflict(a *hostAnalysis, of resource.App) error {
	neighbours, err := c.appsIn(c.r.Context(), of.Environment)
	if err != nil {
		return err
	}
	for _, other := range neighbours {
		in := other.Configuration.Ingress
		if in != nil && other.ID.Key() != of.ID.Key() && slices.ContainsFunc(in.Domains, func(d resource.CustomDomain) bool { return strings.EqualFold(d.Name, a.HostName) }) {
			a.HasConflictOnEnvironment, a.ConflictingApp = true, other.ID.String()
		}
	}
	environments, err := c.Store.Environments().List(c.r.Context(), store.Scope{})
	if err != nil {
		return err
	}
	taken, err := c.domainsBut(c.r.Context(), of.ID)
	if err != nil {
		return err
	}
	if owner := taken[a.HostName]; !owner.IsZero() {
		a.ConflictingApp = owner.String()
	}
	for _, e := range environments {
		below, ok := strings.CutSuffix(a.HostName, "."+strings.ToLower(e.DefaultDomain))
		if e.DefaultDomain == "" || !ok {
			continue
		}
		a.ConflictWithEnvironmentDomain = e.ID.Key() == of.Environment.Key()
		a.HasConflictOnEnvironment = a.ConflictWithEnvironmentDomain
		apps, err := c.appsIn(c.r.Context(), e.ID)
		if err != nil {
			return err
		}
		for _, other := range apps {
			if strings.TrimSuffix(below, ".internal") == strings.ToLower(other.ID.Base()) {
				a.ConflictingApp = other.ID.String()
			}
		}
	}
	return nil
}

// checkName says whether a name is free for a resource in an environment.
func checkName(c *call) error {
	e, err := environmentKind().find(c)
	if err != nil {
		return err
	}
	body, err := c.body()
	if err != nil {
		return err
	}
	var asked struct{ Name, Type string }
	if err := json.Unmarshal(body, &asked); err != nil {
		return refuse(http.StatusBadRequest, "InvalidRequestContent", "The request content is not a question about a name: %v.", err)
	}
	var have []entry
	known := false
	var types []string
	for _, k := range c.kinds {
		if !strings.HasPrefix(strings.ToLower(k.typ()), strings.ToLower(resource.TypeEnvironment)+"/") {
			continue
		}
		types = append(types, k.typ())
		if strings.EqualFold(k.typ(), asked.Type) {
			known = true
			if have, err = k.metas(c.r.Context(), c.Store, store.Scope{Parent: e.ID}); err != nil {
				return err
			}
		}
	}
	if !known {
		return refuse(http.StatusBadRequest, "InvalidResourceType", "type: want one of %s, got '%s'.", strings.Join(types, ", "), asked.Type)
	}
	type answer struct {
		NameAvailable bool   `json:"nameAvailable"`
		Reason        string `json:"reason,omitempty"`
		Message       string `json:"message,omitempty"`
	}
	switch taken := slices.ContainsFunc(have, func(e entry) bool { return strings.EqualFold(e.ID.Base(), asked.Name) }); {
	case asked.Name == "":
		c.answer(http.StatusOK, answer{false, "Invalid", "want a name, got nothing"})
	case taken:
		c.answer(http.StatusOK, answer{false, "AlreadyExists", fmt.Sprintf("The environment '%s' has a %s '%s' already.", e.ID.Base(), asked.Type, asked.Name)})
	default:
		c.answer(http.StatusOK, answer{NameAvailable: true})
	}
	return nil
}

// tellRemovedDomains writes a warning event if a write took custom domains from an app. A PUT without them does that, which
// is how deployments from templates lose domains that were added by hand.
func (c *call) tellRemovedDomains(was, now resource.App) {
	domains := func(a resource.App) []resource.CustomDomain {
		if a.Configuration.Ingress == nil {
			return nil
		}
		return a.Configuration.Ingress.Domains
	}
	var names []string
	for _, d := range domains(was) {
		if !slices.ContainsFunc(domains(now), func(kept resource.CustomDomain) bool { return kept.Name == d.Name }) {
			names = append(names, "'"+d.Name+"'")
		}
	}
	if len(names) == 0 {
		return
	}
	c.System.Append(resource.Event{
		At: time.Now().UTC(), Warning: true, App: now.ID, Reason: "CustomDomainsRemoved", Source: "ContainerAppController",
		Message: fmt.Sprintf("The last write removed the app's custom domains %s; requests for them are answered with the 404 page. "+
			"A PUT replaces all settings: name the domains to keep in configuration.ingress.customDomains", strings.Join(names, ", ")),
	})
}
