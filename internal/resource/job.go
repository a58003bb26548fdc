package resource

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Job is what is run to its end: a template, and what begins an execution of it.
type Job struct {
	Meta
	Environment   ID
	Profile       string `json:",omitempty"` // the name of one of the environment\'s; "": Consumption
	Configuration JobConfiguration
	// Template has no revision suffix and no scale.
	Template Template
	Stored   map[string]json.RawMessage `json:",omitempty"`

	// Suspended jobs begin no executions.
	Suspended bool `json:",omitempty"`

	Provisioning      ProvisioningState
	ProvisioningError string `json:",omitempty"`
	// Observed is the Generation that reconcile has brought to an end, well or badly.
	Observed int64
	// Since is from when times of the schedule count: that of the last one that was begun or passed over, of the first
	// write with this schedule, or of the end of a suspension.
	Since time.Time `json:",omitzero"`
}

// Trigger says what begins an execution.
type Trigger string

const (
	TriggerManual   Trigger = "Manual"
	TriggerSchedule Trigger = "Schedule"
)

// JobConfiguration is what holds for all executions that begin from now on.
type JobConfiguration struct {
	Trigger Trigger
	// Cron is the schedule of TriggerSchedule, as ParseCron reads it.
	Cron string `json:",omitempty"`
	Plan
	Secrets    []AppSecret                `json:",omitempty"`
	Registries []Registry                 `json:",omitempty"`
	Stored     map[string]json.RawMessage `json:",omitempty"`
}

// Plan is how an execution goes about its work.
type Plan struct {
	// Timeout is how long one replica may run.
	Timeout time.Duration
	// Retries is how many failures of replicas, in all, are made up for by another replica.
	Retries int
	// Parallelism is how many replicas run at a time at most, and Completions how many have to succeed.
	Parallelism, Completions int
}

// Execution is one run of a job: the job's template as it was when it began, or another that it was started with, and
// what has become of it.
type Execution struct {
	ID ID // of type TypeExecution
	// Revision is what its replicas are made from, under the execution's ID.
	Revision Revision
	Plan     Plan
	// Due is the time of the schedule that began it; zero when a user did.
	Due time.Time `json:",omitzero"`
	// StopAsked is when a user asked for its end before its work was done.
	StopAsked time.Time `json:",omitzero"`

	State ExecutionState
	// Reason and Message say why State is what it is: a word for programs and a sentence for people.
	Reason  string `json:",omitempty"`
	Message string `json:",omitempty"`
	Created time.Time
	Ended   time.Time `json:",omitzero"`
	// Replicas are all that it has had, in the order of their making.
	Replicas []ExecutionReplica `json:",omitempty"`
}

// ExecutionReplica is one try at an execution's work.
type ExecutionReplica struct {
	Name string
	// Started is set when one of its containers was seen to have run: if it is gone then, its work may be half done.
	Started time.Time `json:",omitzero"`
	Ended   time.Time `json:",omitzero"`
	// Succeeded says how it ended; Reason why not well.
	Succeeded  bool   `json:",omitempty"`
	Reason     string `json:",omitempty"`
	Containers []ContainerStatus
}

// ExecutionState is how far an execution has come, in Azure's words.
type ExecutionState string

const (
	ExecutionProcessing ExecutionState = "Processing" // nothing of it has run yet
	ExecutionRunning    ExecutionState = "Running"
	ExecutionDegraded   ExecutionState = "Degraded" // it has failed, and what still runs of it is ended
	ExecutionSucceeded  ExecutionState = "Succeeded"
	ExecutionFailed     ExecutionState = "Failed"
	ExecutionStopped    ExecutionState = "Stopped"
)

// Over says whether an execution has come to its end.
func (e Execution) Over() bool { return !e.Ended.IsZero() }

// Job is the ID of the job whose execution this is.
func (e Execution) Job() ID { return e.ID.Parent() }

// Name is the execution's own name, "batch-0f3k2xq".
func (e Execution) Name() string { return e.ID.Base() }

// NewExecution is an execution of the job with a template, that of the job or another, before anything was done for it.
func (j Job) NewExecution(name string, t Template, now time.Time) Execution {
	id := j.ID.Child("executions", name)
	return Execution{
		ID: id, Plan: j.Configuration.Plan, State: ExecutionProcessing, Created: now,
		Revision: Revision{ID: id, Environment: j.Environment, Created: now, Template: t, Generation: j.Generation, Active: true},
	}
}

// ExecutionName is a new name for an execution that a user starts. There is no 0 in it, with which those of scheduled
// ones begin.
func ExecutionName(job string) string { return job + "-" + strings.ToLower(rand.Text()[:7]) }

// ScheduledName is the name of the execution that is due at a time of the schedule. It is always the same, so no time is
// executed twice.
func ScheduledName(job string, due time.Time) string {
	minutes := strconv.FormatInt(due.Unix()/60, 36)
	return job + "-" + strings.Repeat("0", max(0, 7-len(minutes))) + minutes
}

// ReplicaName is a new name for a replica of the execution, with five letters and digits at its end.
func (e Execution) ReplicaName() string { return e.Name() + "-" + strings.ToLower(rand.Text()[:5]) }

// MaxUnfinished is how many executions of one job may be under way, or wait for room.
const MaxUnfinished = 100

// The limits of a plan. Azure's are not documented; these keep an execution's record within what a store likes.
const (
	maxParallel = 1000
	maxRetries  = 1000
	// maxTimeout is what a number of seconds in Azure's API can hold.
	maxTimeout = (1<<31 - 1) * time.Second
)

// ValidateJobName checks the name of a job, under which the names of its executions begin.
func ValidateJobName(name string) *Fault {
	f := ValidateAppName(name)
	if f != nil {
		f.Message = strings.Replace(f.Message, "container app name", "job name", 1)
	}
	return f
}

// ValidateJob finds all that is wrong with a job, whatever the api-version that it was written in.
func ValidateJob(j Job) []Fault {
	var faults []Fault
	if f := ValidateJobName(j.ID.Base()); f != nil {
		faults = append(faults, *f)
	}
	faults = append(faults, ValidateTags(j.Tags)...)
	c := j.Configuration
	within := func(field string, got, least, most int64) {
		if got < least || got > most {
			faults = append(faults, Fault{codeValue, field, fmt.Sprintf("want %d to %d, got %d", least, most, got)})
		}
	}
	within("configuration.replicaTimeout", int64(c.Timeout/time.Second), 1, int64(maxTimeout/time.Second))
	within("configuration.replicaRetryLimit", int64(c.Retries), 0, maxRetries)
	at := "configuration.manualTriggerConfig"
	if c.Trigger == TriggerSchedule {
		at = "configuration.scheduleTriggerConfig"
		if _, err := ParseCron(c.Cron); err != nil {
			faults = append(faults, Fault{codeValue, at + ".cronExpression", err.Error()})
		}
	}
	within(at+".parallelism", int64(c.Parallelism), 1, maxParallel)
	within(at+".replicaCompletionCount", int64(c.Completions), 1, maxParallel)
	faults = append(faults, validateRegistries(j.Keyring())...)
	return append(faults, ValidateJobTemplate(j, j.Template)...)
}

// ValidateJobTemplate finds what is wrong with the template of a job, or one that an execution of it is started with.
func ValidateJobTemplate(j Job, t Template) []Fault {
	return append(validateSecrets(j.Configuration.Secrets, t), validateTemplate(t, j.Profile)...)
}
