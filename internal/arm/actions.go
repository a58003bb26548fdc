package arm

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"penstock/internal/resource"
	"penstock/internal/store"
)

func startApp(c *call) error { return c.setStopped(false) }

func stopApp(c *call) error { return c.setStopped(true) }

// setStopped starts or stops an app. It does not wait for the replicas.
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
		a.Stopped = stopped
		return nil
	})
	if err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusAccepted)
	return nil
}

// restartRevision asks for new replicas of a revision in place of the old ones.
func restartRevision(c *call) error {
	rev, found, err := c.revision()
	if err != nil {
		return err
	}
	if err := appKind().writable(found); err != nil {
		return err
	}
	if !rev.Active() || found.Stopped {
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

// setActive activates or deactivates a revision. In Single mode the platform decides which revision is active, so a user
// can only deactivate the newest one and activate it again.
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
		rev.Off = !active
		if active {
			rev.Activations++
		}
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
	if err := c.warnUnserved(found, rev); err != nil {
		return err
	}
	c.answer(http.StatusOK, "Deactivate succeeded")
	return nil
}

// warnUnserved writes an event if the deactivation of rev has left nobody to answer the app's requests.
func (c *call) warnUnserved(app resource.App, rev resource.Revision) error {
	revisions, err := c.Store.Revisions().List(c.r.Context(), store.Scope{Parent: app.ID})
	if err != nil || app.Served(revisions) {
		return err
	}
	c.System.Append(resource.Event{
		At: time.Now().UTC(), Warning: true, App: app.ID, Revision: rev.Name(), Reason: "TrafficToInactiveRevisions", Source: "ContainerAppController",
		Message: fmt.Sprintf("All traffic leads to inactive revisions now (%s), so requests fail. Activate one of them, or change the traffic",
			strings.Join(app.Targets(), ", ")),
	})
	return nil
}

// These codes are ours, because no public source documents Azure's.
const (
	codeInactive = "RevisionNotActive"
	codeSingle   = "RevisionModeSingle"
)

// acted records what a user did to a revision, and asks reconcile to carry it out.
func (c *call) acted(rev resource.Revision, reason, message string) {
	c.System.Append(resource.Event{
		At: time.Now().UTC(), App: rev.App(), Revision: rev.Name(), Reason: reason, Message: message, Source: "ContainerAppController",
	})
	c.Reconcile(rev.App())
}
