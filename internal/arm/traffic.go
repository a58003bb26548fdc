package arm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"penstock/internal/resource"
)

// checkTraffic refuses shares of revisions that the app does not have and that this write does not create.
func (c *call) checkTraffic(ctx context.Context, wanted resource.App) error {
	var faults []resource.Fault
	for i, share := range wanted.Shares() {
		suffix := wanted.Template.RevisionSuffix
		if share.Latest || suffix != "" && share.Revision == wanted.ID.Base()+"--"+suffix {
			continue
		}
		_, err := c.Store.Revisions().Get(ctx, wanted.ID.Child("revisions", share.Revision))
		if errors.Is(err, resource.ErrNotFound) {
			faults = append(faults, resource.Fault{
				Code: "ContainerAppInvalidValue", Field: fmt.Sprintf("configuration.ingress.traffic[%d].revisionName", i),
				Message: fmt.Sprintf("want the name of a revision of the app, as in %s--v1, got %q", wanted.ID.Base(), share.Revision),
			})
		} else if err != nil {
			return err
		}
	}
	if len(faults) > 0 {
		return &resource.InvalidError{Faults: faults}
	}
	return nil
}

// tellTraffic writes an event that says how requests are divided from now on.
func (c *call) tellTraffic(a resource.App) {
	for _, share := range a.Shares() {
		name := a.Target(share)
		message := fmt.Sprintf("Setting traffic weight of '%d%%' for revision '%s'", share.Weight, name)
		if share.Label != "" {
			message += fmt.Sprintf(" with the label '%s'", share.Label)
		}
		c.System.Append(resource.Event{
			At: time.Now().UTC(), App: a.ID, Revision: name, Reason: "TrafficWeightUpdate", Message: message, Source: "ContainerAppController",
		})
	}
}
