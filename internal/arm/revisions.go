package arm

import (
	"cmp"
	"errors"
	"net/http"
	"slices"

	"penstock/internal/arm/app"
	"penstock/internal/resource"
	"penstock/internal/store"
)

func listRevisions(c *call) error {
	found, err := c.app()
	if err != nil {
		return err
	}
	revisions, err := c.Store.Revisions().List(c.r.Context(), store.Scope{Parent: found.ID})
	if err != nil {
		return err
	}
	slices.SortFunc(revisions, func(a, b resource.Revision) int { return a.Created.Compare(b.Created) })
	domain, err := c.domain(found.Environment)
	if err != nil {
		return err
	}
	running, err := c.running()
	if err != nil {
		return err
	}
	only, err := readFilter(c.r.URL.Query().Get("$filter"))
	if err != nil {
		return err
	}
	var value []app.Revision
	for _, rev := range revisions {
		answer := app.NewRevision(rev, found, domain, len(running[rev.ID.Key()]))
		switch wanted, err := only.keep(answer); {
		case err != nil:
			return err
		case wanted:
			value = append(value, answer)
		}
	}
	c.answer(http.StatusOK, pageOf(value))
	return nil
}

// revision returns the revision that the request names, with its app.
func (c *call) revision() (resource.Revision, resource.App, error) {
	found, err := c.app()
	if err != nil {
		return resource.Revision{}, found, err
	}
	id := found.ID.Child("revisions", c.vars["revision"])
	rev, err := c.Store.Revisions().Get(c.r.Context(), id)
	if errors.Is(err, resource.ErrNotFound) {
		return rev, found, notFound(id)
	}
	return rev, found, err
}

func getRevision(c *call) error {
	rev, found, err := c.revision()
	if err != nil {
		return err
	}
	domain, err := c.domain(found.Environment)
	if err != nil {
		return err
	}
	running, err := c.running()
	if err != nil {
		return err
	}
	c.answer(http.StatusOK, app.NewRevision(rev, found, domain, len(running[rev.ID.Key()])))
	return nil
}

// running returns all replicas by the key of their revision.
func (c *call) running() (map[string][]resource.Replica, error) {
	all, err := c.Runtime.Replicas(c.r.Context())
	if err != nil {
		return nil, err
	}
	by := map[string][]resource.Replica{}
	for _, r := range all {
		by[r.Revision.Key()] = append(by[r.Revision.Key()], r)
	}
	for _, replicas := range by {
		slices.SortFunc(replicas, func(a, b resource.Replica) int {
			return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Name, b.Name))
		})
	}
	return by, nil
}

func listReplicas(c *call) error {
	rev, _, err := c.revision()
	if err != nil {
		return err
	}
	running, err := c.running()
	if err != nil {
		return err
	}
	var value []app.Replica
	for _, r := range running[rev.ID.Key()] {
		value = append(value, app.NewReplica(r, c.site()))
	}
	c.answer(http.StatusOK, pageOf(value))
	return nil
}

func getReplica(c *call) error {
	rev, _, err := c.revision()
	if err != nil {
		return err
	}
	running, err := c.running()
	if err != nil {
		return err
	}
	for _, r := range running[rev.ID.Key()] {
		if r.Name == c.vars["replica"] {
			c.answer(http.StatusOK, app.NewReplica(r, c.site()))
			return nil
		}
	}
	return notFound(rev.ID.Child("replicas", c.vars["replica"]))
}
