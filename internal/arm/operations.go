package arm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"

	"penstock/internal/arm/app"
	"penstock/internal/resource"
	"penstock/internal/store"
)

// operationLife is how long an operation can be polled after its start. Older ones are removed every pruneEvery.
const (
	operationLife = 24 * time.Hour
	pruneEvery    = time.Hour
)

// newOperation returns the operation for a write of a resource.
func newOperation(m resource.Meta, what string) store.Operation {
	return store.Operation{
		ID: uuid.NewString(), Resource: m.ID, Kind: what, Generation: m.Generation,
		Started: time.Now().UTC(), Location: app.RegionName(m.Location),
	}
}

// begun asks reconcile to carry out an operation that has been stored, and sets the headers for polling it. name is the
// beginning of its addresses, as "containerapp" in containerappOperationStatuses.
func (c *call) begun(op store.Operation, name string) {
	look := op.Resource
	if look.Is(resource.TypeExecution) {
		look = look.Parent() // executions are reconciled with their job
	}
	defer c.Reconcile(look)
	last := c.lastPrune.Load()
	if op.Started.Unix() >= last+int64(pruneEvery/time.Second) && c.lastPrune.CompareAndSwap(last, op.Started.Unix()) {
		// The write is done, so this must happen even if the client has left.
		if err := c.Store.Operations().Prune(context.WithoutCancel(c.r.Context()), op.Started.Add(-operationLife)); err != nil {
			c.Log.Warn("old operations are not removed now; the next hour tries again", "err", err)
		}
	}
	query := "?api-version=" + c.r.URL.Query().Get("api-version")
	base := fmt.Sprintf("%s/subscriptions/%s/providers/%s/locations/%s/%sOperation",
		c.endpoint(), op.Resource.Subscription, namespaceOf(op.Resource.Type), op.Location, name)
	h := c.w.Header()
	h.Set("Azure-AsyncOperation", base+"Statuses/"+op.ID+query+"&azureAsyncOperation=true")
	h.Set("Location", base+"Results/"+op.ID+query)
	h.Set("x-ms-async-operation-timeout", "PT15M")
	h.Set("Retry-After", "1")
}

// operationStatus is the JSON of an operation.
type operationStatus struct {
	ID        string   `json:"id"`
	Name      string   `json:"name"`
	Status    string   `json:"status"`
	StartTime app.Time `json:"startTime"`
	Error     *problem `json:"error,omitempty"`
}

func (c *call) operation() (store.Operation, error) {
	op, err := c.Store.Operations().Get(c.r.Context(), c.vars["operation"])
	if errors.Is(err, resource.ErrNotFound) {
		return op, refuse(http.StatusNotFound, "OperationNotFound", "There is no operation '%s'; it may have begun more than %s ago.", c.vars["operation"], operationLife)
	}
	return op, err
}

// progress returns the state of an operation: InProgress, Succeeded, Failed or Canceled. The last two have a problem that
// says why.
func (c *call) progress(op store.Operation) (resource.ProvisioningState, *problem, error) {
	of := c.kindOf(op.Resource.Type)
	if of == nil {
		return "", nil, fmt.Errorf("operation %q is one of a %s, which is no resource here", op.ID, op.Resource.Type)
	}
	is, err := of.how(c, op)
	switch {
	case err != nil:
		return "", nil, err
	case op.Kind == "delete" && (is.gone || is.state != resource.Deleting):
		return resource.Succeeded, nil, nil
	case op.Kind == "delete":
		return resource.InProgress, nil, nil
	case is.gone || is.state == resource.Deleting:
		return resource.Canceled, &problem{Code: "OperationPreempted", Message: "The resource was deleted before this was done."}, nil
	case is.meta.Generation > op.Generation:
		return resource.Canceled, &problem{Code: "OperationPreempted", Message: "A more recent write of the resource replaced this one."}, nil
	case !is.done:
		return resource.InProgress, nil, nil
	case is.state == resource.Failed || is.state == resource.Canceled:
		cause := cmp.Or(is.cause, "The resource could not be provisioned; the system log says why.")
		return is.state, &problem{Code: "ContainerAppOperationError", Message: cause}, nil
	}
	return resource.Succeeded, nil, nil
}

func getOperationStatus(c *call) error {
	op, err := c.operation()
	if err != nil {
		return err
	}
	state, cause, err := c.progress(op)
	if err != nil {
		return err
	}
	if state == resource.InProgress {
		c.w.Header().Set("Retry-After", "1")
	}
	c.answer(http.StatusOK, operationStatus{
		ID: c.r.URL.Path, Name: op.ID, Status: string(state), StartTime: app.Time{Time: op.Started}, Error: cause,
	})
	return nil
}

func getOperationResult(c *call) error {
	op, err := c.operation()
	if err != nil {
		return err
	}
	state, cause, err := c.progress(op)
	switch {
	case err != nil:
		return err
	case state == resource.InProgress:
		h := c.w.Header()
		h.Set("Location", c.endpoint()+c.r.URL.RequestURI())
		h.Set("Retry-After", "1")
		c.w.WriteHeader(http.StatusAccepted)
		return nil
	case cause != nil:
		return refuse(http.StatusConflict, cause.Code, "%s", cause.Message)
	case op.Kind == "delete":
		c.w.WriteHeader(http.StatusNoContent)
		return nil
	}
	of := c.kindOf(op.Resource.Type)
	of.setVars(c, op.Resource)
	return of.get(c)
}
