package app

import (
	"fmt"
	"strings"

	"penstock/internal/resource"
)

// Job is Microsoft.App/jobs. Blocks that are not set are written as null, as Azure does.
type Job struct {
	Tracked
	Properties JobProperties `json:"properties"`
	Identity   *Identity     `json:"identity"`
}

// JobProperties has the properties of a job.
type JobProperties struct {
	ProvisioningState   string            `json:"provisioningState" arm:"ro"`
	RunningState        string            `json:"runningState" arm:"ro"`
	EnvironmentID       string            `json:"environmentId"`
	WorkloadProfileName *string           `json:"workloadProfileName"`
	Configuration       *JobConfiguration `json:"configuration"`
	Template            *JobTemplate      `json:"template"`
	OutboundIPAddresses []string          `json:"outboundIpAddresses" arm:"ro"`
	EventStreamEndpoint string            `json:"eventStreamEndpoint" arm:"ro"`
}

// JobConfiguration says what starts an execution, and has its limits.
type JobConfiguration struct {
	TriggerType           *string        `json:"triggerType"`
	ReplicaTimeout        *int           `json:"replicaTimeout"`
	ReplicaRetryLimit     *int           `json:"replicaRetryLimit"`
	ManualTriggerConfig   *JobTrigger    `json:"manualTriggerConfig"`
	ScheduleTriggerConfig *ScheduledTask `json:"scheduleTriggerConfig"`
	EventTriggerConfig    *EventTrigger  `json:"eventTriggerConfig"`
	Secrets               []Secret       `json:"secrets"`
	Registries            []Registry     `json:"registries"`
	IdentitySettings      []unset        `json:"identitySettings,omitempty"`
}

// JobTrigger says how many replicas an execution has.
type JobTrigger struct {
	ReplicaCompletionCount *int `json:"replicaCompletionCount"`
	Parallelism            *int `json:"parallelism"`
}

// ScheduledTask is the trigger of a job with a schedule.
type ScheduledTask struct {
	CronExpression *string `json:"cronExpression"`
	JobTrigger
}

// EventTrigger is the trigger of a job that events start.
type EventTrigger struct {
	JobTrigger
	Scale *JobScale `json:"scale"`
}

// JobScale says how many executions events start.
type JobScale struct {
	MinExecutions   *int      `json:"minExecutions"`
	MaxExecutions   *int      `json:"maxExecutions"`
	PollingInterval *int      `json:"pollingInterval"`
	Rules           []JobRule `json:"rules"`
}

// JobRule is a rule by which executions are started. It is a custom rule of apps with a name.
type JobRule struct {
	Name *string `json:"name"`
	CustomRule
}

// JobTemplate describes the replicas of an execution.
type JobTemplate struct {
	Containers     []Container     `json:"containers"`
	InitContainers []InitContainer `json:"initContainers"`
	Volumes        []Volume        `json:"volumes"`
}

// ReadJob reads the body of a PUT to id, as ReadApp does.
func ReadJob(id resource.ID, body []byte) (j resource.Job, notes []string, err error) {
	var w Job
	r, ok := decodeBody(body, jobFields(), codeSchema, &w)
	if !ok {
		return j, nil, r.err()
	}
	j.Meta = r.tracked(id, w.Tracked)
	j.Environment = r.environmentID(AppProperties{EnvironmentID: w.Properties.EnvironmentID})
	j.Profile = or(w.Properties.WorkloadProfileName, "")
	if c := w.Properties.Configuration; c != nil {
		j.Configuration = r.jobConfiguration(*c)
	} else {
		r.add(resource.Fault{Code: codeValue, Field: "configuration", Message: "want the trigger of the job, got nothing"})
	}
	if t := w.Properties.Template; t != nil {
		j.Template = r.template(Template{Containers: t.Containers, InitContainers: t.InitContainers, Volumes: t.Volumes})
	} else {
		r.add(resource.Fault{Code: codeValue, Field: "template", Message: "want the containers of the job, got nothing"})
	}
	r.add(resource.ValidateJob(j)...)
	if _, err := resource.ParseSettings(nil, j.Tags); err != nil {
		r.addError(err)
	}
	return j, r.notes, r.err()
}

func (r *reader) jobConfiguration(w JobConfiguration) resource.JobConfiguration {
	var c resource.JobConfiguration
	bad := func(field, format string, args ...any) {
		r.add(resource.Fault{Code: codeValue, Field: "configuration." + field, Message: fmt.Sprintf(format, args...)})
	}
	if w.TriggerType == nil {
		bad("triggerType", "want Manual, Schedule or Event, got nothing")
	}
	c.Trigger = enum(r, "configuration.triggerType", w.TriggerType, resource.TriggerManual, resource.TriggerManual, resource.TriggerSchedule, resource.TriggerEvent)
	if w.ReplicaTimeout == nil {
		bad("replicaTimeout", "want the number of seconds that a replica can run, got nothing")
	}
	c.Timeout, c.Retries = seconds(or(w.ReplicaTimeout, 0)), or(w.ReplicaRetryLimit, 0)
	shares := or(w.ManualTriggerConfig, JobTrigger{})
	for _, other := range []struct {
		field   string
		trigger resource.Trigger
		given   bool
	}{
		{"manualTriggerConfig", resource.TriggerManual, or(w.ManualTriggerConfig, JobTrigger{}) != (JobTrigger{})},
		{"scheduleTriggerConfig", resource.TriggerSchedule, or(w.ScheduleTriggerConfig, ScheduledTask{}) != (ScheduledTask{})},
		{"eventTriggerConfig", resource.TriggerEvent, or(w.EventTriggerConfig, EventTrigger{}) != (EventTrigger{})},
	} {
		if other.given && other.trigger != c.Trigger {
			bad(other.field, "want nothing, because triggerType is %s", c.Trigger)
		}
	}
	switch schedule, event := w.ScheduleTriggerConfig, w.EventTriggerConfig; c.Trigger {
	case resource.TriggerSchedule:
		if schedule == nil {
			bad("scheduleTriggerConfig", "want a cronExpression, because triggerType is Schedule; got nothing")
			break
		}
		c.Cron, shares = strings.Join(strings.Fields(or(schedule.CronExpression, "")), " "), schedule.JobTrigger
	case resource.TriggerEvent:
		if event == nil || event.Scale == nil {
			bad("eventTriggerConfig.scale", "want rules, because triggerType is Event; got nothing")
			event = &EventTrigger{JobTrigger: or(event, EventTrigger{}).JobTrigger}
		} else {
			c.Scale = r.jobScale(*event.Scale)
		}
		shares = event.JobTrigger
	}
	c.Parallelism, c.Completions = or(shares.Parallelism, 1), or(shares.ReplicaCompletionCount, 1)
	c.Secrets, c.Registries = r.secrets(w.Secrets), registries(w.Registries)
	return c
}

func (r *reader) jobScale(w JobScale) resource.JobScale {
	s := resource.JobScale{
		Min: or(w.MinExecutions, 0), Max: or(w.MaxExecutions, resource.DefaultMaxExecutions), Polling: resource.DefaultPolling,
	}
	if w.PollingInterval != nil {
		s.Polling = seconds(*w.PollingInterval)
	}
	for i, rule := range w.Rules {
		s.Rules = append(s.Rules, r.rule(fmt.Sprintf("configuration.eventTriggerConfig.scale.rules[%d]", i), ScaleRule{Name: rule.Name, Custom: &rule.CustomRule}))
	}
	return s
}

func newJobScale(s resource.JobScale) *JobScale {
	w := &JobScale{MinExecutions: &s.Min, MaxExecutions: &s.Max, PollingInterval: wholeSeconds(s.Polling)}
	for _, rule := range s.Rules {
		sent := newScaleRule(rule)
		w.Rules = append(w.Rules, JobRule{sent.Name, *sent.Custom})
	}
	return w
}

// NewJob returns the JSON of a job.
func NewJob(j resource.Job, site Site) Job {
	tracked := newTracked(j.Meta)
	tracked.Location = displayRegion(j.Location)
	c := j.Configuration
	w := JobConfiguration{
		TriggerType:       new(string(c.Trigger)),
		ReplicaTimeout:    wholeSeconds(c.Timeout),
		ReplicaRetryLimit: &c.Retries,
		Secrets:           newSecrets(c.Secrets),
		Registries:        newRegistries(c.Registries),
	}
	shares := JobTrigger{ReplicaCompletionCount: &c.Completions, Parallelism: &c.Parallelism}
	switch c.Trigger {
	case resource.TriggerSchedule:
		w.ScheduleTriggerConfig = &ScheduledTask{CronExpression: &c.Cron, JobTrigger: shares}
	case resource.TriggerEvent:
		w.EventTriggerConfig = &EventTrigger{JobTrigger: shares, Scale: newJobScale(c.Scale)}
	default:
		w.ManualTriggerConfig = &shares
	}
	t := newTemplate(j.Template)
	return Job{
		Tracked:  tracked,
		Identity: &Identity{Type: "None"},
		Properties: JobProperties{
			ProvisioningState:   string(j.Provisioning()),
			RunningState:        jobState(j),
			EnvironmentID:       j.Environment.String(),
			WorkloadProfileName: given(&j.Profile),
			Configuration:       &w,
			Template:            &JobTemplate{Containers: t.Containers, InitContainers: t.InitContainers, Volumes: t.Volumes},
			OutboundIPAddresses: []string{},
			EventStreamEndpoint: streamBase(site, j.ID) + "/eventstream",
		},
	}
}

// jobState returns the running state of a job, in the words of api-version 2026-07-01.
func jobState(j resource.Job) string {
	switch {
	case j.Suspended:
		return "Suspended"
	case j.Provisioning() == resource.InProgress:
		return "Progressing"
	}
	return "Ready"
}

// ExecutionTemplate replaces the template of the job for one execution. It has no volumes, because Azure has no volume
// mounts for the containers of an execution.
type ExecutionTemplate struct {
	Containers     []ExecutionContainer `json:"containers"`
	InitContainers []ExecutionContainer `json:"initContainers"`
}

// ExecutionContainer is a container in an ExecutionTemplate. It has fewer fields than other containers.
type ExecutionContainer struct {
	Image     *string    `json:"image"`
	Name      *string    `json:"name"`
	Command   []string   `json:"command,omitempty"`
	Args      []string   `json:"args,omitempty"`
	Env       []EnvVar   `json:"env,omitempty"`
	Resources *Resources `json:"resources"`
}

func (w ExecutionContainer) container() Container {
	return Container{Image: w.Image, Name: w.Name, Command: w.Command, Args: w.Args, Env: w.Env, Resources: w.Resources}
}

// ReadExecutionTemplate reads the body of a request that starts the job, and returns the template of the execution.
// Without a body it is the template of the job.
func ReadExecutionTemplate(j resource.Job, body []byte) (resource.Template, error) {
	if len(strings.TrimSpace(string(body))) == 0 {
		return j.Template, nil
	}
	var w ExecutionTemplate
	r, ok := decodeBody(body, nil, codeSchema, &w)
	if !ok {
		return resource.Template{}, r.err()
	}
	if len(w.Containers) == 0 && len(w.InitContainers) == 0 && len(r.faults) == 0 {
		return j.Template, nil // clients send {} when they have no template
	}
	var t Template
	for _, c := range w.Containers {
		t.Containers = append(t.Containers, c.container())
	}
	for _, c := range w.InitContainers {
		init := c.container()
		t.InitContainers = append(t.InitContainers, newInitContainer(init))
	}
	read := r.template(t)
	r.add(resource.ValidateJobTemplate(j, read)...)
	return read, r.err()
}

// Execution is Microsoft.App/jobs/executions.
type Execution struct {
	ID         string              `json:"id"`
	Name       string              `json:"name"`
	Type       string              `json:"type"`
	Properties ExecutionProperties `json:"properties"`
}

// ExecutionProperties has the properties of an execution.
type ExecutionProperties struct {
	Status         string            `json:"status"`
	StartTime      Time              `json:"startTime"`
	EndTime        *Time             `json:"endTime,omitempty"`
	Template       ExecutionTemplate `json:"template"`
	DetailedStatus ExecutionDetails  `json:"detailedStatus"`
	Reason         string            `json:"reason,omitempty"`
	Message        string            `json:"message,omitempty"`
}

// ExecutionDetails lists the replicas of an execution, including those that failed and were replaced.
type ExecutionDetails struct {
	Replicas []ReplicaDetails `json:"replicas"`
}

// ReplicaDetails says how the containers of a replica have ended.
type ReplicaDetails struct {
	Name       string             `json:"name"`
	Containers []ContainerDetails `json:"containers"`
}

// ContainerDetails is the state of a container. Code is its exit code.
type ContainerDetails struct {
	Name                  string `json:"name"`
	Code                  *int   `json:"code,omitempty"`
	Status                string `json:"status"`
	AdditionalInformation string `json:"additionalInformation,omitempty"`
}

// NewExecution returns the JSON of an execution.
func NewExecution(e resource.Execution) Execution {
	w := Execution{
		ID:   e.ID.String(),
		Name: e.Name(),
		Type: resource.TypeExecution,
		Properties: ExecutionProperties{
			Status:         string(e.State),
			StartTime:      Time{e.Created},
			Reason:         e.Reason,
			Message:        e.Message,
			DetailedStatus: ExecutionDetails{Replicas: []ReplicaDetails{}},
		},
	}
	if e.Over() {
		w.Properties.EndTime = &Time{e.Ended}
	}
	t := newTemplate(e.Template)
	for _, c := range t.Containers {
		w.Properties.Template.Containers = append(w.Properties.Template.Containers, newExecutionContainer(c))
	}
	for _, c := range t.InitContainers {
		w.Properties.Template.InitContainers = append(w.Properties.Template.InitContainers, newExecutionContainer(c.container()))
	}
	for _, r := range e.Replicas {
		w.Properties.DetailedStatus.Replicas = append(w.Properties.DetailedStatus.Replicas, newReplicaDetails(r))
	}
	return w
}

func newExecutionContainer(c Container) ExecutionContainer {
	return ExecutionContainer{Image: c.Image, Name: c.Name, Command: c.Command, Args: c.Args, Env: c.Env, Resources: c.Resources}
}

func newReplicaDetails(r resource.ExecutionReplica) ReplicaDetails {
	w := ReplicaDetails{Name: r.Name, Containers: []ContainerDetails{}}
	for _, c := range r.Containers {
		one := ContainerDetails{Name: c.Name, Status: "Waiting"}
		switch {
		case c.LastExit != nil:
			one.Code, one.Status, one.AdditionalInformation = &c.LastExit.Code, "Terminated", c.LastExit.Why()
		case !r.Ended.IsZero():
			one.Status, one.AdditionalInformation = "Terminated", r.Reason
		case c.Running:
			one.Status = "Running"
		}
		w.Containers = append(w.Containers, one)
	}
	return w
}

// NewExecutionReplica returns the JSON of a replica of an execution, while the replica exists.
func NewExecutionReplica(r resource.Replica, site Site) Replica {
	w := NewReplica(r, site)
	w.Type = resource.TypeExecution + "/replicas"
	return w
}
