package arm

import (
	"cmp"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"

	"penstock/internal/arm/app"
	"penstock/internal/resource"
	"penstock/internal/store"
)

// jobOperations is the beginning of the addresses of operations of jobs and executions.
const jobOperations = "containerappsjob"

func jobKind() kind[resource.Job] {
	return kind[resource.Job]{
		resourceType: resource.TypeJob, vars: []string{"job"}, noun: "job", code: "ContainerAppsJob",
		table: func(s *store.Store) documents[resource.Job] { return s.Jobs() },
		meta:  func(j *resource.Job) *resource.Meta { return &j.Meta },
		read:  app.ReadJob,
		check: func(c *call, was, wanted resource.Job) error {
			if was.Template.Equal(wanted.Template) {
				return nil
			}
			// The registries' passwords are those that the job will have after the write.
			var err error
			if wanted.Configuration.Secrets, err = c.seal(wanted.ID, was.Configuration.Secrets, wanted.Configuration.Secrets, wanted.Template); err != nil {
				return err
			}
			return c.checkImages(c.r.Context(), wanted.Keyring(), wanted.Template)
		},
		change: changeJob,
		answer: func(c *call, j resource.Job) (any, error) { return app.NewJob(j, c.site()), nil },
		put:    http.StatusCreated, patch: http.StatusAccepted,
		operations: jobOperations,
		progress:   func(j resource.Job) resource.Progress { return j.Progress },
	}
}

func (c *call) job() (resource.Job, error) { return jobKind().find(c) }

// changeJob copies what is wanted into a job.
func changeJob(c *call, j *resource.Job, exists bool, wanted *resource.Job) error {
	environment, err := c.environmentOf(c.r.Context(), "job", wanted.ID.Base(), j.Environment, wanted.Environment)
	if err != nil {
		return err
	}
	settings, err := environment.Settings(wanted.Tags)
	if err != nil {
		return err
	}
	wanted.Template.SetDefaultResources(settings.Behaviour)
	if faults := resource.ValidateProfile(wanted.Profile, wanted.Template, environment); len(faults) > 0 {
		return &resource.InvalidError{Faults: faults}
	}
	if err := c.checkStorages(c.r.Context(), environment.ID, wanted.Template); err != nil {
		return err
	}
	secrets, err := c.seal(wanted.ID, j.Configuration.Secrets, wanted.Configuration.Secrets, wanted.Template)
	if err != nil {
		return err
	}
	if !exists || j.Configuration.Trigger != wanted.Configuration.Trigger || j.Configuration.Cron != wanted.Configuration.Cron {
		j.ScheduledFrom = time.Now().UTC() // earlier times belong to the old schedule
	}
	wanted.Location = cmp.Or(wanted.Location, environment.Location)
	j.Environment, j.Profile = environment.ID, wanted.Profile
	j.Configuration, j.Template, j.Stored = wanted.Configuration, wanted.Template, wanted.Stored
	j.Configuration.Secrets = secrets
	return nil
}

func listJobSecrets(c *call) error {
	found, err := c.job()
	if err != nil {
		return err
	}
	return c.tellSecrets(found.ID, found.Configuration.Secrets)
}

func suspendJob(c *call) error { return c.setSuspended(true) }

func resumeJob(c *call) error { return c.setSuspended(false) }

// setSuspended suspends or resumes a job. Executions that have been started continue.
func (c *call) setSuspended(suspended bool) error {
	jobs := jobKind()
	id := jobs.id(c)
	what := "resume"
	if suspended {
		what = "suspend"
	}
	_, err := jobs.commit(c, id, what, func(j *resource.Job, exists bool) error {
		if !exists {
			return notFound(id)
		}
		if err := jobs.writable(*j); err != nil {
			return err
		}
		now := time.Now().UTC()
		if j.Suspended && !suspended {
			j.ScheduledFrom = now // times during the suspension are not made up for
		}
		j.Generation++
		j.Modified, j.Suspended = now, suspended
		return nil
	})
	if err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusAccepted)
	return nil
}

// startJob starts an execution, with the template of the job or one in the body.
func startJob(c *call) error {
	ctx := c.r.Context()
	job, err := c.job()
	if err != nil {
		return err
	}
	if err := jobKind().writable(job); err != nil {
		return err
	}
	if job.Suspended {
		return refuse(http.StatusConflict, "ContainerAppsJobSuspended", "The job '%s' is suspended, so no execution can be started; resume it first.", job.ID.Base())
	}
	body, err := c.body()
	if err != nil {
		return err
	}
	template, err := app.ReadExecutionTemplate(job, body)
	if err != nil {
		return err
	}
	environment, err := c.Store.Environments().Get(ctx, job.Environment)
	if err != nil {
		return err
	}
	if faults := resource.ValidateProfile(job.Profile, template, environment); len(faults) > 0 {
		return &resource.InvalidError{Faults: faults}
	}
	if err := c.checkImages(ctx, job.Keyring(), template); err != nil {
		return err
	}
	all, err := c.executions(job.ID)
	if err != nil {
		return err
	}
	unfinished := 0
	for _, e := range all {
		if !e.Over() {
			unfinished++
		}
	}
	if unfinished >= resource.MaxUnfinished {
		c.w.Header().Set("Retry-After", "10")
		return refuse(http.StatusTooManyRequests, "ContainerAppsJobTooManyExecutions",
			"The job '%s' has %d executions that have not ended; stop some, or start another when one has.", job.ID.Base(), unfinished)
	}
	begun := job.NewExecution(resource.ExecutionName(job.ID.Base()), template, time.Now().UTC())
	op := newJobOperation(job, begun.ID, "start", begun.Created)
	_, made, err := c.Store.Executions().Create(ctx, begun, &op)
	if err != nil {
		return err
	}
	if !made {
		return fmt.Errorf("execution %s: the name is taken; start it again", begun.Name())
	}
	c.begun(op, jobOperations)
	c.w.WriteHeader(http.StatusAccepted)
	return nil
}

// newJobOperation returns an operation on executions of a job.
func newJobOperation(job resource.Job, on resource.ID, what string, at time.Time) store.Operation {
	return store.Operation{ID: uuid.NewString(), Resource: on, Kind: what, Started: at, Location: app.RegionName(job.Location)}
}
