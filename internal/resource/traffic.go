package resource

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"
)

// RevisionMode says who decides which revisions of an app are active.
type RevisionMode string

const (
	// Single: the platform. The latest ready revision has all requests; the one before it ends.
	Single RevisionMode = "Single"
	// Multiple: the user, with a share of the requests for each.
	Multiple RevisionMode = "Multiple"
)

// DefaultMaxInactive is how many inactive revisions an app keeps (learn.microsoft.com/azure/container-apps/revisions).
const DefaultMaxInactive = 100

// Traffic is one share of an app's requests.
type Traffic struct {
	// Revision is a name; with Latest it is "" and means the latest ready one.
	Revision string `json:",omitempty"`
	Latest   bool   `json:",omitempty"`
	Weight   int    // percent
	// Label gives the revision a host name of its own that can move to another.
	Label string `json:",omitempty"`
}

// Shares tells how requests are divided: as the user says in Multiple mode, else all to the latest ready revision.
func (a App) Shares() []Traffic {
	if in := a.Configuration.Ingress; a.Configuration.Mode == Multiple && in != nil && len(in.Traffic) > 0 {
		return in.Traffic
	}
	return []Traffic{{Latest: true, Weight: 100}}
}

// Target names the revision that a share leads to now; "" when the app has none yet.
func (a App) Target(t Traffic) string {
	if t.Latest {
		// Until one was ready, requests wait for the one that is to be.
		return cmp.Or(a.LatestReadyRevision, a.LatestRevision)
	}
	return t.Revision
}

var label = regexp.MustCompile(`^[a-z]([a-z0-9-]*[a-z0-9])?$`)

// LabelHost is the first part of the host name of an app's label.
func LabelHost(app, label string) string { return app + "---" + label }

// maxHostLabel is the longest that a part of a host name may be (RFC 1035 section 2.3.4).
const maxHostLabel = 63

// validateTraffic checks the shares of an app in Multiple mode; in Single mode they mean nothing.
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
			bad(at, "want one entry a revision, got a second")
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
