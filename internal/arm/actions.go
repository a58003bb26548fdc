package arm

import (
	"fmt"
	"net/http"
	"time"

	"penstock/internal/resource"
)

func startApp(c *call) error { return c.setStopped(false) }

func stopApp(c *call) error { return c.setStopped(true) }

// setStopped begins to start or stop an app.
func (c *call) setStopped(stopped bool) error {
	id := c.appID()
	written, err := c.Store.Apps().Put(c.r.Context(), id, func(a *resource.App, exists bool) error {
		switch {
		case !exists:
			return notFound(id)
		case a.Provisioning == resource.Deleting:
			return beingDeleted(*a)
		}
		a.Generation++
		a.Modified = time.Now().UTC()
		a.Stopped, a.Provisioning, a.ProvisioningError = stopped, resource.InProgress, ""
		return nil
	})
	if err != nil {
		return err
	}
	kind := "start"
	if stopped {
		kind = "stop"
	}
	if err := c.begin(written.Meta, kind); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusAccepted)
	return nil
}

func beingDeleted(a resource.App) error {
	return refuse(http.StatusConflict, "ContainerAppOperationInProgress", "The container app '%s' is being deleted; write it again when it has gone.", a.ID.Base())
}

// restartRevision asks for new replicas in place of those that a revision has.
func restartRevision(c *call) error {
	rev, found, err := c.revision()
	if err != nil {
		return err
	}
	if found.Provisioning == resource.Deleting {
		return beingDeleted(found)
	}
	if !rev.Active || found.Stopped {
		return refuse(http.StatusBadRequest, codeInactive, "The revision '%s' has no replicas to restart: it is not active, or its app is stopped.", rev.Name())
	}
	rev, err = c.Store.Revisions().Put(c.r.Context(), rev.ID, func(rev *resource.Revision, exists bool) error {
		if !exists {
			return notFound(rev.ID)
		}
		rev.Restarted = time.Now().UTC()
		return nil
	})
	if err != nil {
		return err
	}
	c.acted(rev, "RevisionRestarting", fmt.Sprintf("Restarting revision %q: new replicas first, then the old ones end", rev.Name()))
	c.answer(http.StatusOK, "Restart succeeded")
	return nil
}

// codeInactive is ours: no public source has Azure's word.
const codeInactive = "RevisionNotActive"

// acted tells what a user did to a revision, and asks for it to be carried out.
func (c *call) acted(rev resource.Revision, reason, message string) {
	c.System.Append(resource.Event{
		At: time.Now().UTC(), App: rev.App(), Revision: rev.Name(), Reason: reason, Message: message, Source: "ContainerAppController",
	})
	c.Reconcile(rev.App())
}
