package resource

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Job is a template whose replicas run to their end, and what starts an execution of it.
type Job struct {
	Meta
	Environment   ID
	Profile       string `json:",omitempty"` // a workload profile of the environment; "": Consumption
	Configuration JobConfiguration
	// Template has no revision suffix and no scale.
	Template Template
	Stored   map[string]json.RawMessage `json:",omitempty"`

	// Suspended means that no executions are started.
	Suspended bool `json:",omitempty"`

	// ScheduledFrom is from when times of the schedule count: that of the first write with this schedule, or of the end
	// of a suspension.
	ScheduledFrom time.Time `json:",omitzero"`

	JobStatus `json:"-"`
}

// JobStatus is the part of a job that the platform writes.
type JobStatus struct {
	Progress
	// LastDue is the newest time of the schedule whose execution was started or skipped.
	LastDue time.Time `json:",omitzero"`
}

// Since returns the time after which scheduled times have not been executed yet.
func (j Job) Since() time.Time {
	if j.LastDue.After(j.ScheduledFrom) {
		return j.LastDue
	}
	return j.ScheduledFrom
}

// Trigger says what starts an execution.
type Trigger string

const (
	TriggerManual   Trigger = "Manual"
	TriggerSchedule Trigger = "Schedule"
	TriggerEvent    Trigger = "Event"
)

// JobScale says how many executions of a job events start. All its rules are custom ones.
type JobScale struct {
	// Min executions run at any time. Max is the largest number that the rules can ask for.
	Min, Max int
	Polling  time.Duration // how often the rules are measured
	Rules    []ScaleRule   `json:",omitempty"`
}

// DefaultMaxExecutions is Azure's default (learn.microsoft.com/azure/container-apps/jobs).
const DefaultMaxExecutions = 100

// JobConfiguration applies to all executions that are started from now on.
type JobConfiguration struct {
	Trigger Trigger
	// Cron is the schedule of TriggerSchedule, in the notation of ParseCron.
	Cron string `json:",omitempty"`
	// Scale is of TriggerEvent.
	Scale JobScale `json:",omitzero"`
	ExecutionPolicy
	Secrets    []AppSecret                `json:",omitempty"`
	Registries []Registry                 `json:",omitempty"`
	Stored     map[string]json.RawMessage `json:",omitempty"`
}

// UnmarshalJSON reads a stored configuration. Earlier versions accepted 7 for Sunday in a schedule.
func (c *JobConfiguration) UnmarshalJSON(b []byte) error {
	type plain JobConfiguration
	if err := json.Unmarshal(b, (*plain)(c)); err != nil {
		return err
	}
	c.Cron = withoutDay7(c.Cron)
	return nil
}

// ExecutionPolicy says how many replicas an execution has, how long they can run, and how often they are retried.
type ExecutionPolicy struct {
	// Timeout is how long a replica can run.
	Timeout time.Duration
	// Retries is how many failed replicas are replaced, in total.
	Retries int
	// Parallelism is how many replicas can run at a time. Completions is how many must succeed.
	Parallelism, Completions int
}

// Execution is one run of a job. Its template is the job's at the time of the start, or one that the user sent.
type Execution struct {
	ID          ID // of type TypeExecution
	Environment ID
	Created     time.Time
	// Generation is that of the job when the execution was started.
	Generation int64 `json:",omitempty"`
	// Template describes its replicas.
	Template Template
	Policy   ExecutionPolicy
	// Due is the scheduled time of the execution. It is zero when a user started it.
	Due time.Time `json:",omitzero"`
	// StopAsked is when a user asked to stop it.
	StopAsked time.Time `json:",omitzero"`

	ExecutionStatus `json:"-"`
}

// ExecutionStatus is the part of an execution that the platform writes.
type ExecutionStatus struct {
	State ExecutionState
	// Reason and Message say why the execution has its State: a word for programs and a sentence for people.
	Reason  string    `json:",omitempty"`
	Message string    `json:",omitempty"`
	Ended   time.Time `json:",omitzero"`
	// Settings are those of its replicas. Images are the digests of the images in its template. Both are set when the
	// execution is first reconciled; Images is nil before.
	Settings Settings
	Images   map[string]string
	// Replicas are all replicas that it has had, the oldest first.
	Replicas []ExecutionReplica `json:",omitempty"`
}

// ExecutionReplica is a replica of an execution, which runs once.
type ExecutionReplica struct {
	Name string
	// Started is set when one of its containers was seen to have run. A replica that disappears after that may have done
	// a part of its work.
	Started time.Time `json:",omitzero"`
	Ended   time.Time `json:",omitzero"`
	// Succeeded says whether it succeeded, Reason why it did not.
	Succeeded  bool   `json:",omitempty"`
	Reason     string `json:",omitempty"`
	Containers []ContainerStatus
}

// ExecutionState is the state of an execution, in Azure's words.
type ExecutionState string

const (
	ExecutionProcessing ExecutionState = "Processing" // no replica has run yet
	ExecutionRunning    ExecutionState = "Running"
	ExecutionDegraded   ExecutionState = "Degraded" // it has failed, and its last replicas are being stopped
	ExecutionSucceeded  ExecutionState = "Succeeded"
	ExecutionFailed     ExecutionState = "Failed"
	ExecutionStopped    ExecutionState = "Stopped"
)

// Over says whether an execution has ended.
func (e Execution) Over() bool { return !e.Ended.IsZero() }

// Job returns the ID of the execution's job.
func (e Execution) Job() ID { return e.ID.Parent() }

// Name returns the execution's own name, as in "batch-0f3k2xq".
func (e Execution) Name() string { return e.ID.Base() }

// Revision returns the execution in the form of a revision that has the execution's ID.
func (e Execution) Revision() Revision {
	return Revision{
		ID: e.ID, Environment: e.Environment, Created: e.Created, Generation: e.Generation, Template: e.Template, Images: e.Images,
		RevisionStatus: RevisionStatus{Settings: e.Settings},
	}
}

// NewExecution returns a new execution of the job. Its template is the job's or another one.
func (j Job) NewExecution(name string, t Template, now time.Time) Execution {
	return Execution{
		ID: j.ID.Child("executions", name), Environment: j.Environment, Created: now, Generation: j.Generation,
		Template: t, Policy: j.Configuration.ExecutionPolicy,
		ExecutionStatus: ExecutionStatus{State: ExecutionProcessing},
	}
}

// ExecutionName returns a new name for an execution that a user starts. It contains no 0, because the names of scheduled
// executions begin with 0.
func ExecutionName(job string) string { return job + "-" + strings.ToLower(rand.Text()[:7]) }

// ScheduledName returns the name of the execution for a scheduled time. It is always the same for one time, so that no
// time is executed twice.
func ScheduledName(job string, due time.Time) string {
	minutes := strconv.FormatInt(due.Unix()/60, 36)
	return job + "-" + strings.Repeat("0", max(0, 7-len(minutes))) + minutes
}

// ReplicaName returns a new name for a replica of the execution. It ends with five letters and digits.
func (e Execution) ReplicaName() string { return e.Name() + "-" + strings.ToLower(rand.Text()[:5]) }

// MaxUnfinished is how many executions of a job can run or wait for capacity at a time.
const MaxUnfinished = 100

// The limits of an ExecutionPolicy. Azure documents none; these keep the stored execution small.
const (
	maxParallel = 1000
	maxRetries  = 1000
	// maxTimeout is the largest number of seconds in Azure's API.
	maxTimeout = (1<<31 - 1) * time.Second
)

// ValidateJobName checks the name of a job. The names of its executions begin with it.
func ValidateJobName(name string) *Fault {
	f := ValidateAppName(name)
	if f != nil {
		f.Message = strings.Replace(f.Message, "container app name", "job name", 1)
	}
	return f
}

// ValidateJob checks a job and returns all its faults. The api-version does not matter.
func ValidateJob(j Job) []Fault {
	var faults []Fault
	if f := ValidateJobName(j.ID.Base()); f != nil {
		faults = append(faults, *f)
	}
	faults = append(faults, ValidateTags(j.Tags)...)
	faults = append(faults, validateJobTags(j.Tags)...)
	c := j.Configuration
	within := func(field string, got, least, most int64) {
		if got < least || got > most {
			faults = append(faults, Fault{codeValue, field, fmt.Sprintf("want %d to %d, got %d", least, most, got)})
		}
	}
	within("configuration.replicaTimeout", int64(c.Timeout/time.Second), 1, int64(maxTimeout/time.Second))
	within("configuration.replicaRetryLimit", int64(c.Retries), 0, maxRetries)
	at := "configuration.manualTriggerConfig"
	switch c.Trigger {
	case TriggerEvent:
		at = "configuration.eventTriggerConfig"
		faults = append(faults, validateJobScale(c.Scale, j.Template)...)
	case TriggerSchedule:
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

// ValidateJobTemplate checks the template of a job, or one with which an execution is started.
func ValidateJobTemplate(j Job, t Template) []Fault {
	return append(validateSecrets(j.Configuration.Secrets, t, j.Configuration.Scale.Rules), validateTemplate(t, j.Profile, j.Environment)...)
}

const eventScale = "configuration.eventTriggerConfig.scale"

// validateJobScale checks the rules of a job that events start. A job whose rules are all not evaluated here would never
// run, so it is refused.
func validateJobScale(s JobScale, t Template) (faults []Fault) {
	bad := func(at, format string, args ...any) {
		faults = append(faults, Fault{codeValue, eventScale + at, fmt.Sprintf(format, args...)})
	}
	if s.Min < 0 || s.Min > MaxUnfinished {
		bad(".minExecutions", "want 0 to %d, got %d", MaxUnfinished, s.Min)
	}
	if s.Max < 1 || s.Max > maxParallel {
		bad(".maxExecutions", "want 1 to %d, got %d", maxParallel, s.Max)
	} else if s.Max < s.Min {
		bad(".maxExecutions", "want at least minExecutions, which is %d, got %d", s.Min, s.Max)
	}
	if s.Polling < 0 || s.Polling > 24*time.Hour {
		bad(".pollingInterval", "want 0 to 86400 seconds, got %d", int64(s.Polling/time.Second))
	}
	evaluated := 0
	var others []string
	seen := map[string]bool{}
	for i, rule := range s.Rules {
		field := fmt.Sprintf("%s.rules[%d]", eventScale, i)
		faults = append(faults, validateRule(rule, field, field, seen, t)...)
		switch kind := rule.Custom.Type; kind {
		case External, ExternalPush, "cron":
			evaluated++
		case "http", "tcp", "cpu", "memory":
			bad(fmt.Sprintf(".rules[%d].type", i), "want the type of a KEDA scaler for jobs, got %s, which measures running replicas and cannot start a job", kind)
		default:
			others = append(others, kind)
		}
	}
	switch {
	case len(s.Rules) == 0:
		bad(".rules", "want at least one rule, got none: nothing would start the job")
	case evaluated == 0 && len(others) == len(s.Rules):
		bad(".rules", "want a rule of type external, external-push or cron, got only %s, which are not evaluated here: nothing would start the job", strings.Join(others, ", "))
	}
	return faults
}
