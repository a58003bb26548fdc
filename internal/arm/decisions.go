package arm

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"penstock/internal/decisions"
	"penstock/internal/resource"
)

// scalingDecision is a decision about the number of replicas of a revision. Azure has no such resource. Nobody writes
// it.
type scalingDecision struct {
	ID         string             `json:"id"`
	Name       string             `json:"name"`
	Type       string             `json:"type"`
	Properties decisionProperties `json:"properties"`
}

type decisionProperties struct {
	Time         time.Time `json:"time"`
	RevisionName string    `json:"revisionName"`
	Behaviour    string    `json:"behaviour"`
	From         int       `json:"from"`
	To           int       `json:"to"`
	Rule         string    `json:"rule,omitempty"`
	Value        float64   `json:"value"`
	Target       float64   `json:"target"`
	Wanted       int       `json:"wanted"`
	Bound        string    `json:"bound,omitempty"`
	Reason       string    `json:"reason"`
}

// decisionsName is the name of the collection below an app.
const decisionsName = "scalingDecisions"

func newDecision(app resource.ID, d decisions.Decision) scalingDecision {
	name := decisionName(d.Place())
	return scalingDecision{
		ID: app.Child(decisionsName, name).String(), Name: name, Type: resource.TypeApp + "/" + decisionsName,
		Properties: decisionProperties{
			Time: d.At.UTC(), RevisionName: d.Revision, Behaviour: d.Behaviour, From: d.From, To: d.To, Rule: d.Rule, Value: d.Value, Target: d.Target,
			Wanted: d.Wanted, Bound: d.Bound, Reason: d.Reason,
		},
	}
}

// decisionTime begins the name of a decision, so that names are in the order of time.
const decisionTime = "20060102T150405.000000000Z"

func decisionName(p decisions.Place) string {
	return p.At.UTC().Format(decisionTime) + "-" + p.Revision
}

// parseDecisionName returns the place of the decision with a name.
func parseDecisionName(name string) (p decisions.Place, err error) {
	if len(name) <= len(decisionTime)+1 || name[len(decisionTime)] != '-' {
		return p, fmt.Errorf("want a time as in %s, '-' and the name of a revision", decisionTime)
	}
	p.Revision = name[len(decisionTime)+1:]
	p.At, err = time.Parse(decisionTime, strings.ToUpper(name[:len(decisionTime)]))
	return p, err
}

// A list without $top has defaultDecisions in a part. No part has more than maxDecisions.
const (
	defaultDecisions = 200
	maxDecisions     = 1000
)

// listDecisions lists the decisions about an app, the newest first.
func listDecisions(c *call) error {
	found, err := c.app()
	if err != nil {
		return err
	}
	q := decisions.Query{App: found.ID}
	top, _, err := c.part(func(last string) (err error) {
		q.Before, err = parseDecisionName(last)
		return err
	})
	if err != nil {
		return err
	}
	if top == 0 {
		top = defaultDecisions
	}
	top = min(top, maxDecisions)
	only, err := readFilter(c.r.URL.Query().Get("$filter"))
	if err != nil {
		return err
	}
	var failed error
	q.Keep = func(d decisions.Decision) bool {
		keep, err := only.keep(newDecision(found.ID, d))
		if err != nil {
			failed = err
		}
		return keep
	}
	q.Limit = top + 1 // one more says whether there is another part
	all, err := c.Decisions.Read(c.r.Context(), q)
	if err == nil {
		err = failed
	}
	if err != nil {
		return err
	}
	slices.Reverse(all)
	more := len(all) > top
	all = all[:min(top, len(all))]
	value := make([]scalingDecision, 0, len(all))
	for _, d := range all {
		value = append(value, newDecision(found.ID, d))
	}
	answer := pageOf(value)
	if more {
		answer.NextLink = c.nextPart(value[top-1].Name)
	}
	c.answer(http.StatusOK, answer)
	return nil
}

func getDecision(c *call) error {
	found, err := c.app()
	if err != nil {
		return err
	}
	id := found.ID.Child(decisionsName, c.vars["decision"])
	place, err := parseDecisionName(id.Base())
	if err != nil {
		return notFound(id)
	}
	all, err := c.Decisions.Read(c.r.Context(), decisions.Query{
		App: found.ID, Since: place.At, Keep: func(d decisions.Decision) bool { return d.Place().Compare(place) == 0 },
	})
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return notFound(id)
	}
	c.answer(http.StatusOK, newDecision(found.ID, all[0]))
	return nil
}
