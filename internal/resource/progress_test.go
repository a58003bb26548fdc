package resource_test

import (
	"testing"
	"time"

	"penstock/internal/resource"
)

func TestProvisioningFollowsFromBothDocuments(t *testing.T) {
	written := resource.Meta{Generation: 3}
	deleted := resource.Meta{Generation: 3, Deleted: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	tests := map[string]struct {
		meta     resource.Meta
		progress resource.Progress
		want     resource.ProvisioningState
		cause    string
	}{
		"nothing done yet":                      {resource.Meta{Generation: 1}, resource.Progress{}, resource.InProgress, ""},
		"an older write is done":                {written, resource.Progress{Observed: 2}, resource.InProgress, ""},
		"an older write failed":                 {written, resource.Progress{Observed: 2, Failure: "no image"}, resource.InProgress, ""},
		"the newest is done":                    {written, resource.Progress{Observed: 3}, resource.Succeeded, ""},
		"the newest failed":                     {written, resource.Progress{Observed: 3, Failure: "no image"}, resource.Failed, "no image"},
		"deleted when all was done":             {deleted, resource.Progress{Observed: 3}, resource.Deleting, ""},
		"deleted while something was under way": {deleted, resource.Progress{Observed: 2}, resource.Deleting, ""},
		"deleted after a failure":               {deleted, resource.Progress{Observed: 3, Failure: "no image"}, resource.Deleting, "no image"},
	}
	for name, test := range tests {
		app := resource.App{Meta: test.meta, AppStatus: resource.AppStatus{Progress: test.progress}}
		if got := app.Provisioning(); got != test.want {
			t.Errorf("%s: got %s, want %s", name, got, test.want)
		}
		if got := app.ProvisioningError(); got != test.cause {
			t.Errorf("%s: got error %q, want %q", name, got, test.cause)
		}
	}
}

func TestTheLaterDecisionOnARevisionHolds(t *testing.T) {
	retired := resource.RevisionStatus{Retired: true, RetiredAt: 1}
	tests := map[string]struct {
		rev  resource.Revision
		want bool
	}{
		"new":                                 {resource.Revision{}, true},
		"deactivated by its user":             {resource.Revision{Off: true}, false},
		"retired":                             {resource.Revision{Activations: 1, RevisionStatus: retired}, false},
		"retired, then activated by its user": {resource.Revision{Activations: 2, RevisionStatus: retired}, true},
		"activated, and deactivated again":    {resource.Revision{Activations: 2, Off: true, RevisionStatus: retired}, false},
		"retired without an activation":       {resource.Revision{RevisionStatus: resource.RevisionStatus{Retired: true}}, false},
		"brought back by the platform":        {resource.Revision{Activations: 1, RevisionStatus: resource.RevisionStatus{RetiredAt: 1}}, true},
	}
	for name, test := range tests {
		if got := test.rev.Active(); got != test.want {
			t.Errorf("%s: got active %t, want %t", name, got, test.want)
		}
	}
}
