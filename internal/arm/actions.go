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
	apps := appKind()
	id := apps.id(c)
	what := "start"
	if stopped {
		what = "stop"
	}
	_, err := apps.commit(c, id, what, func(a *resource.App, exists bool) error {
		if !exists {
			return notFound(id)
		}
		if err := apps.writable(*a); err != nil {
			return err
		}
		a.Generation++
		a.Modified = time.Now().UTC()
		a.Stopped, a.Provisioning, a.ProvisioningError = stopped, resource.InProgress, ""
		return nil
	})
	if err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusAccepted)
	return nil
}

// restartRevision asks for new replicas in place of those that a revision has.
func restartRevision(c *call) error {
	rev, found, err := c.revision()
	if err != nil {
		return err
	}
	if err := appKind().writable(found); err != nil {
		return err
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

func activateRevision(c *call) error { return c.setActive(true) }

func deactivateRevision(c *call) error { return c.setActive(false) }

// setActive activates or deactivates a revision. In Single mode the platform activates, so there a user can only take
// the newest out of service and bring it back.
func (c *call) setActive(active bool) error {
	rev, found, err := c.revision()
	if err != nil {
		return err
	}
	if err := appKind().writable(found); err != nil {
		return err
	}
	name := rev.Name()
	if active && found.Configuration.Mode != resource.Multiple && name != found.LatestRevision && name != found.LatestReadyRevision {
		return refuse(http.StatusBadRequest, codeSingle,
			"The container app '%s' is in Single revision mode, in which only the latest revision is active; set activeRevisionsMode to Multiple to activate '%s'.", found.ID.Base(), name)
	}
	rev, err = c.Store.Revisions().Put(c.r.Context(), rev.ID, func(rev *resource.Revision, exists bool) error {
		if !exists {
			return notFound(rev.ID)
		}
		rev.Active, rev.Off = active, !active
		return nil
	})
	if err != nil {
		return err
	}
	if active {
		c.acted(rev, "RevisionActivating", fmt.Sprintf("Activating revision %q", name))
		c.answer(http.StatusOK, "Activate succeeded")
		return nil
	}
	c.acted(rev, "RevisionDeactivating", fmt.Sprintf("Deactivating revision %q", name))
	c.answer(http.StatusOK, "Deactivate succeeded")
	return nil
}

// Codes of ours: no public source has Azure's words.
const (
	codeInactive = "RevisionNotActive"
	codeSingle   = "RevisionModeSingle"
)

// acted tells what a user did to a revision, and asks for it to be carried out.
func (c *call) acted(rev resource.Revision, reason, message string) {
	c.System.Append(resource.Event{
		At: time.Now().UTC(), App: rev.App(), Revision: rev.Name(), Reason: reason, Message: message, Source: "ContainerAppController",
	})
	c.Reconcile(rev.App())
}
