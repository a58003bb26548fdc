package reconcile

import (
	"context"
	"errors"
	"fmt"
	"time"

	"penstock/internal/jobplan"
	"penstock/internal/resource"
	"penstock/internal/runtimes"
)

// execution advances an execution as far as possible. listed are its replicas in the engine. wake is when to look again
// if the engine reports nothing before, or zero.
func (r *Reconciler) execution(ctx context.Context, job resource.Job, env resource.Environment, e *resource.Execution, listed []resource.Replica) (wake time.Time, err error) {
	if e.Over() {
		if len(staying(listed)) > 0 {
			err = r.cfg.Runtime.Remove(ctx, e.ID)
		}
		return time.Time{}, err
	}
	if err := r.prepare(ctx, job, env, e); err != nil {
		return time.Time{}, err
	}
	now := time.Now().UTC()
	var step jobplan.Step
	*e, step = jobplan.Advance(*e, listed, r.cfg.Backoff, now, e.ReplicaName)
	if err := r.keepExecution(ctx, job, *e, step); err != nil {
		return step.Wake, err
	}
	if step.Remove {
		return step.Wake, r.cfg.Runtime.Remove(ctx, e.ID)
	}
	err = r.cfg.Runtime.Execute(ctx, runtimes.Execution{
		Revision: e.Revision(), Env: jobEnv(job, *e), Timeout: e.Policy.Timeout, Replicas: step.Replicas, Begun: step.Begun,
	})
	if errors.Is(err, runtimes.ErrTooLarge) {
		*e = jobplan.Fail(*e, "TooLarge", err.Error(), now)
		err = r.keepExecution(ctx, job, *e, jobplan.Step{})
	}
	return step.Wake, err
}

// prepare sets the settings and images of an execution when it is handled for the first time. If an image does not
// exist the execution fails.
func (r *Reconciler) prepare(ctx context.Context, job resource.Job, env resource.Environment, e *resource.Execution) error {
	if e.Images != nil {
		return nil
	}
	settings, err := env.Settings(job.Tags)
	if err != nil {
		return err
	}
	images, err := r.digests(ctx, job.Keyring(), e.Template)
	if errors.Is(err, resource.ErrNotFound) {
		*e = jobplan.Fail(*e, "ImageNotFound", err.Error(), time.Now().UTC())
		return nil
	}
	e.Settings, e.Images = settings, images
	return err
}

// keepExecution stores the status of an execution and then reports what is new. If the status has not changed it does
// not write to the disk.
func (r *Reconciler) keepExecution(ctx context.Context, job resource.Job, e resource.Execution, step jobplan.Step) error {
	was := resource.Execution{}
	_, err := r.cfg.Store.Executions().Observe(ctx, e.ID, func(now resource.Execution, status *resource.ExecutionStatus) error {
		was, *status = now, e.ExecutionStatus
		return nil
	})
	if err != nil {
		return err
	}
	for _, replica := range step.Failed {
		r.cfg.Emit(resource.Event{
			At: time.Now().UTC(), Warning: true, App: job.ID, Revision: e.Name(), Replica: replica.Name, Reason: "ReplicaFailed",
			Message: fmt.Sprintf("Replica '%s' has failed: %s", replica.Name, replica.Reason), Source: eventSource,
		})
	}
	for _, name := range step.Created {
		r.emitReplica(e.Revision(), name, "SuccessfulCreate", fmt.Sprintf("Created replica '%s'", name))
	}
	switch {
	case was.Over() || !e.Over():
	case e.State == resource.ExecutionFailed:
		r.warn(job.ID, e.Name(), e.Reason, e.Message)
	default:
		r.emit(job.ID, e.Name(), e.Reason, e.Message, e.Ended.Sub(e.Created))
	}
	return nil
}

// jobEnv returns the platform's variables (learn.microsoft.com/azure/container-apps/environment-variables).
func jobEnv(job resource.Job, e resource.Execution) []resource.EnvVar {
	return []resource.EnvVar{
		{Name: "CONTAINER_APP_JOB_NAME", Value: job.ID.Base()},
		{Name: "CONTAINER_APP_JOB_EXECUTION_NAME", Value: e.Name()},
	}
}
