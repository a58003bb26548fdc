package resource

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// RevisionMode says whether the platform or the user decides which revisions of an app are active.
type RevisionMode string

const (
	// Single means that the platform decides: the latest ready revision gets all requests, and the one before it is
	// deactivated.
	Single RevisionMode = "Single"
	// Multiple means that the user decides, and gives each revision a share of the requests.
	Multiple RevisionMode = "Multiple"
)

// DefaultMaxInactive is how many inactive revisions an app keeps (learn.microsoft.com/azure/container-apps/revisions).
const DefaultMaxInactive = 100

// Traffic gives a revision a share of an app's requests.
type Traffic struct {
	// Revision is a name. It is "" when Latest is set, which means the latest ready revision.
	Revision string `json:",omitempty"`
	Latest   bool   `json:",omitempty"`
	Weight   int    // percent
	// Label gives the revision a host name of its own, which can be moved to another revision.
	Label string `json:",omitempty"`
}

// Shares returns how requests are divided. In Multiple mode the user says so; in Single mode the latest ready revision
// gets all of them.
func (a App) Shares() []Traffic {
	if in := a.Configuration.Ingress; a.Configuration.Mode == Multiple && in != nil && len(in.Traffic) > 0 {
		return in.Traffic
	}
	return []Traffic{{Latest: true, Weight: 100}}
}

// Target returns the name of the revision that gets the share now, or "" when the app has none yet.
func (a App) Target(t Traffic) string {
	if t.Latest {
		// While no revision has been ready, requests wait for the latest one.
		return cmp.Or(a.LatestReadyRevision, a.LatestRevision)
	}
	return t.Revision
}

// Targets returns the names of the revisions that get requests.
func (a App) Targets() (names []string) {
	for _, share := range a.Shares() {
		if name := a.Target(share); share.Weight > 0 && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// Served says whether a revision that gets requests is active. An app without ingress gets none.
func (a App) Served(revisions []Revision) bool {
	to := a.Targets()
	return a.Configuration.Ingress == nil || slices.ContainsFunc(revisions, func(rev Revision) bool {
		return rev.Active() && slices.Contains(to, rev.Name())
	})
}

var label = regexp.MustCompile(`^[a-z]([a-z0-9-]*[a-z0-9])?$`)

// LabelHost returns the first part of the host name of an app's label.
func LabelHost(app, label string) string { return app + "---" + label }

// maxHostLabel is the greatest length of a part of a host name (RFC 1035 section 2.3.4).
const maxHostLabel = 63

// validateTraffic checks the shares of an app in Multiple mode. In Single mode they have no effect.
func validateTraffic(a App) []Fault {
	in := a.Configuration.Ingress
	if a.Configuration.Mode != Multiple || in == nil || len(in.Traffic) == 0 {
		return nil
	}
	const field = "configuration.ingress.traffic"
	var faults []Fault
	bad := func(at, format string, args ...any) {
		faults = append(faults, Fault{codeValue, at, fmt.Sprintf(format, args...)})
	}
	sum := 0
	labels, revisions := map[string]bool{}, map[string]bool{}
	for i, t := range in.Traffic {
		at := fmt.Sprintf("%s[%d]", field, i)
		switch {
		case t.Latest && t.Revision != "":
			bad(at, "want revisionName or latestRevision, got both")
		case !t.Latest && t.Revision == "":
			bad(at, "want revisionName or latestRevision: true, got neither")
		case revisions[t.Revision]:
			bad(at, "want one entry for each revision, got a second")
		}
		revisions[t.Revision] = true
		if t.Weight < 0 || t.Weight > 100 {
			bad(at+".weight", "want 0 to 100, got %d", t.Weight)
		}
		sum += t.Weight
		if t.Label == "" {
			continue
		}
		host := LabelHost(a.ID.Base(), t.Label)
		if !label.MatchString(t.Label) || strings.Contains(t.Label, "--") || len(host) > maxHostLabel {
			bad(at+".label", "want lower-case letters, digits and single '-', starting with a letter and ending with a letter or digit, and at most %d characters with %q before it, got %q",
				maxHostLabel, LabelHost(a.ID.Base(), ""), t.Label)
		}
		if labels[t.Label] {
			bad(at+".label", "want a label on one revision, got %q on a second", t.Label)
		}
		labels[t.Label] = true
	}
	if sum != 100 {
		bad(field, "want weights that add up to 100, got %d", sum)
	}
	return faults
}
