package admin

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"penstock/internal/admin/wire"
	"penstock/internal/decisions"
	"penstock/internal/leak"
	"penstock/internal/resource"
	"penstock/internal/scale"
)

func (a *api) scale(w http.ResponseWriter, r *http.Request) {
	if text := r.URL.Query().Get("job"); text != "" {
		job, err := resource.ParseID(text)
		if err != nil || !job.Is(resource.TypeJob) {
			a.fail(w, http.StatusBadRequest, "InvalidParameterValue", fmt.Errorf("job: want the resource ID of a job, got %q", strings.ToValidUTF8(text, "?")))
			return
		}
		a.respond(w, http.StatusOK, wire.JobScale{Job: job.String(), Rules: ruleStates(a.Scale.ExplainJob(job))})
		return
	}
	text := r.URL.Query().Get("app")
	app, err := resource.ParseID(text)
	if err != nil || !app.Is(resource.TypeApp) {
		a.fail(w, http.StatusBadRequest, "InvalidParameterValue", fmt.Errorf("app: want the resource ID of an app, got %q", strings.ToValidUTF8(text, "?")))
		return
	}
	q, err := decisionQuery(app, r.URL.Query(), time.Now())
	if err != nil {
		a.fail(w, http.StatusBadRequest, "InvalidParameterValue", err)
		return
	}
	revisions, err := a.Revisions(r.Context(), app)
	var decided []decisions.Decision
	if err == nil {
		decided, err = a.Decisions.Read(r.Context(), q)
	}
	if err != nil {
		a.fail(w, http.StatusInternalServerError, "ScaleFailed", err)
		return
	}
	out := wire.Scale{App: app.String(), Revisions: []wire.RevisionScale{}}
	for _, rev := range revisions {
		if e, ok := a.Scale.Explain(rev.ID); ok {
			out.Revisions = append(out.Revisions, explained(rev, e, decided, a.Memory(rev.ID)))
		}
	}
	slices.SortFunc(out.Revisions, func(a, b wire.RevisionScale) int { return strings.Compare(a.Revision, b.Revision) })
	a.respond(w, http.StatusOK, out)
}

// defaultChanges and maxChanges limit the number of decisions in a response.
const (
	defaultChanges = 200
	maxChanges     = 10_000
)

// decisionQuery reads from the query parameters which decisions to return.
func decisionQuery(app resource.ID, values url.Values, now time.Time) (decisions.Query, error) {
	q := decisions.Query{App: app, Since: now.Add(-time.Hour), Limit: defaultChanges}
	var err error
	if text := values.Get("since"); text != "" {
		if q.Since, err = time.Parse(time.RFC3339, text); err != nil {
			return q, fmt.Errorf("since: want a time as in 2026-03-01T09:00:00Z, got %q", text)
		}
	}
	if text := values.Get("limit"); text != "" {
		if q.Limit, err = strconv.Atoi(text); err != nil || q.Limit < 1 || q.Limit > maxChanges {
			return q, fmt.Errorf("limit: want 1 to %d, got %q", maxChanges, text)
		}
	}
	return q, nil
}

func explained(rev resource.Revision, e scale.Explanation, decided []decisions.Decision, memory []leak.Memory) wire.RevisionScale {
	name := rev.Name()
	s := wire.RevisionScale{
		Revision: name, Created: rev.Created.UTC(), Behaviour: string(e.Policy.Behaviour), MinReplicas: e.Policy.Min, MaxReplicas: e.Policy.Max,
		CooldownSeconds: e.Policy.Cooldown.Seconds(), WindowSeconds: e.Policy.ScaleIn.Seconds(),
		Wanted: e.Wanted, Replicas: e.Current, Ready: e.Ready, Held: e.Held, HeldBy: e.HeldBy, Reason: e.Last.Reason, Bound: string(e.Last.Bound), Until: e.Last.Until,
		Rules: []wire.RuleState{}, Changes: []wire.ScaleChange{}, Memory: []wire.ContainerMemory{},
		ServiceMS: milliseconds(e.Learned.Service), StartMS: milliseconds(e.Learned.Start),
	}
	s.RecyclePercent = rev.Settings.Recycle
	for _, m := range memory {
		s.Memory = append(s.Memory, wire.ContainerMemory{
			Replica: m.Replica, Container: m.Container, UsedBytes: m.Used, LimitBytes: m.Limit, GrowthBytesPerHour: m.PerHour,
			SecondsToLimit: m.Left.Seconds(), ObservedSeconds: m.Over.Seconds(), Leak: m.Certain, Recycled: m.Worn,
		})
	}
	s.Rules = ruleStates(e.Last.Wishes)
	for _, d := range decided {
		if strings.EqualFold(d.Revision, name) {
			s.Changes = append(s.Changes, wire.ScaleChange{
				At: d.At.UTC(), From: d.From, To: d.To, Behaviour: d.Behaviour, Rule: d.Rule, Value: d.Value, Target: d.Target, Wanted: d.Wanted,
				Bound: d.Bound, Reason: d.Reason,
			})
		}
	}
	return s
}

func ruleStates(wishes []scale.Wish) []wire.RuleState {
	all := []wire.RuleState{}
	for _, r := range wishes {
		all = append(all, wire.RuleState{
			Name: r.Rule, Kind: string(r.Kind), Value: r.Value, Target: r.Target, Wanted: r.Wanted, Active: r.Active, Failed: r.Failed, Note: r.Note,
			Window: r.Hours, WindowChanges: r.Changes.UTC(),
		})
	}
	return all
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
