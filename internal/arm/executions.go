package arm

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"penstock/internal/arm/app"
	"penstock/internal/resource"
	"penstock/internal/store"
)

// executionKind is the kind of executions. Users do not write them; they are started through their job.
type executionKind struct{}

func (executionKind) typ() string { return resource.TypeExecution }

func (executionKind) register(on func(method, pattern string, handle func(*call) error) *route) {
	on(http.MethodGet, jobPath+"/executions", listExecutions).query = []string{"$filter"}
	on(http.MethodGet, jobPath+"/executions/{execution}", getExecution)
	on(http.MethodPost, jobPath+"/executions/{execution}/stop", stopExecution)
	on(http.MethodGet, jobPath+"/executions/{execution}/replicas", listExecutionReplicas)
	on(http.MethodGet, jobPath+"/executions/{execution}/replicas/{replica}", getExecutionReplica)
}

// operationsName returns "", because operations of executions have the addresses of jobs.
func (executionKind) operationsName() string { return "" }

// metas returns nothing, because executions belong to their job and are deleted with it.
func (executionKind) metas(context.Context, *store.Store, store.Scope) ([]entry, error) {
	return nil, nil
}

// allExecutions is the name, in an operation, that stands for all executions that it stops.
const allExecutions = "*"

// concerned returns the executions of an operation.
func (c *call) concerned(op store.Operation) ([]resource.Execution, error) {
	if op.Resource.Base() == allExecutions {
		all, err := c.executions(op.Resource.Parent())
		return slices.DeleteFunc(all, func(e resource.Execution) bool { return !e.StopAsked.Equal(op.Started) }), err
	}
	e, err := c.Store.Executions().Get(c.r.Context(), op.Resource)
	return []resource.Execution{e}, err
}

// how returns the progress of an operation. A start is done when the execution exists, a stop when the executions have
// ended.
func (executionKind) how(c *call, op store.Operation) (progress, error) {
	concerned, err := c.concerned(op)
	if errors.Is(err, resource.ErrNotFound) {
		return progress{gone: true}, nil
	}
	running := slices.ContainsFunc(concerned, func(e resource.Execution) bool { return !e.Over() })
	return progress{state: resource.Succeeded, done: op.Kind == "start" || !running}, err
}

func (executionKind) setVars(c *call, id resource.ID) {
	c.vars["subscription"], c.vars["group"] = id.Subscription, id.Group
	c.vars["job"], c.vars["execution"] = id.Parent().Base(), id.Base()
}

// executionName is the result of the operation that starts a job.
type executionName struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// get answers with the result of an operation: the name of the execution, or all executions that were stopped.
func (executionKind) get(c *call) error {
	op, err := c.operation()
	if err != nil {
		return err
	}
	concerned, err := c.concerned(op)
	if err != nil {
		return err
	}
	if op.Resource.Base() != allExecutions {
		c.answer(http.StatusOK, executionName{concerned[0].ID.String(), concerned[0].Name()})
		return nil
	}
	var value []app.Execution
	for _, e := range concerned {
		value = append(value, app.NewExecution(e))
	}
	c.answer(http.StatusOK, pageOf(value))
	return nil
}

// executions returns the executions of a job, the newest first.
func (c *call) executions(job resource.ID) ([]resource.Execution, error) {
	all, err := c.Store.Executions().List(c.r.Context(), store.Scope{Parent: job})
	slices.SortFunc(all, func(a, b resource.Execution) int {
		return cmp.Or(b.Created.Compare(a.Created), strings.Compare(a.Name(), b.Name()))
	})
	return all, err
}

func (c *call) execution() (resource.Execution, error) {
	job, err := c.job()
	if err != nil {
		return resource.Execution{}, err
	}
	id := job.ID.Child("executions", c.vars["execution"])
	e, err := c.Store.Executions().Get(c.r.Context(), id)
	if errors.Is(err, resource.ErrNotFound) {
		return e, notFound(id)
	}
	return e, err
}

func listExecutions(c *call) error {
	job, err := c.job()
	if err != nil {
		return err
	}
	wanted, err := readFilter(c.r.URL.Query().Get("$filter"))
	if err != nil {
		return err
	}
	all, err := c.executions(job.ID)
	if err != nil {
		return err
	}
	var value []app.Execution
	for _, e := range all {
		answer := app.NewExecution(e)
		switch keep, err := wanted.keep(answer); {
		case err != nil:
			return err
		case keep:
			value = append(value, answer)
		}
	}
	c.answer(http.StatusOK, pageOf(value))
	return nil
}

func getExecution(c *call) error {
	e, err := c.execution()
	if err != nil {
		return err
	}
	c.answer(http.StatusOK, app.NewExecution(e))
	return nil
}

// stopExecution stops an execution, without waiting for it. It does nothing to an execution that has ended.
func stopExecution(c *call) error {
	e, err := c.execution()
	if err != nil {
		return err
	}
	return c.stop([]resource.Execution{e}, e.ID)
}

// stopJob stops all executions of a job that have not ended, without waiting for them.
func stopJob(c *call) error {
	job, err := c.job()
	if err != nil {
		return err
	}
	all, err := c.executions(job.ID)
	if err != nil {
		return err
	}
	return c.stop(all, job.ID.Child("executions", allExecutions))
}

func (c *call) stop(list []resource.Execution, on resource.ID) error {
	ctx := c.r.Context()
	job, err := c.job()
	if err != nil {
		return err
	}
	at := time.Now().UTC()
	for _, e := range list {
		if e.Over() {
			continue
		}
		_, err := c.Store.Executions().Put(ctx, e.ID, func(e *resource.Execution, exists bool) error {
			if !exists {
				return notFound(e.ID)
			}
			if !e.Over() {
				e.StopAsked = at
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	op := newJobOperation(job, on, "stop", at)
	_, err = c.Store.Jobs().Begin(ctx, job.ID, func(_ *resource.Job, exists bool) error {
		if !exists {
			return notFound(job.ID)
		}
		return nil
	}, func(resource.Job) store.Operation { return op })
	if err != nil {
		return err
	}
	c.begun(op, jobOperations)
	c.w.WriteHeader(http.StatusAccepted)
	return nil
}

func listExecutionReplicas(c *call) error {
	e, err := c.execution()
	if err != nil {
		return err
	}
	running, err := c.running()
	if err != nil {
		return err
	}
	var value []app.Replica
	for _, r := range running[e.ID.Key()] {
		value = append(value, app.NewExecutionReplica(r, c.site()))
	}
	c.answer(http.StatusOK, pageOf(value))
	return nil
}

func getExecutionReplica(c *call) error {
	e, err := c.execution()
	if err != nil {
		return err
	}
	running, err := c.running()
	if err != nil {
		return err
	}
	for _, r := range running[e.ID.Key()] {
		if r.Name == c.vars["replica"] {
			c.answer(http.StatusOK, app.NewExecutionReplica(r, c.site()))
			return nil
		}
	}
	return notFound(e.ID.Child("replicas", c.vars["replica"]))
}
