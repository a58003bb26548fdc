package cli

import (
	"cmp"
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"
)

func newJobCmd(env *Env) *cobra.Command {
	cmd := &cobra.Command{Use: "job", Short: "Manage jobs: containers that run to completion, started manually, on a schedule or by events"}
	s := &scope{}
	s.bind(cmd.PersistentFlags())
	execution := group(&cobra.Command{Use: "execution", Short: "Manage executions of a job"})
	execution.AddCommand(newExecutionListCmd(env, s), newExecutionShowCmd(env, s))
	cmd.AddCommand(newJobCreateCmd(env, s), newJobListCmd(env, s), newJobShowCmd(env, s), newJobDeleteCmd(env, s),
		newJobStartCmd(env, s), newJobStopCmd(env, s),
		newJobSuspendCmd(env, s), newJobResumeCmd(env, s), newJobExplainCmd(env, s), newJobLogsCmd(env, s), newJobEventsCmd(env, s), execution, newSecretCmd(env, s, jobSecrets))
	return group(cmd)
}

// jobView holds the fields of a job that commands read.
type jobView struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Properties struct {
		ProvisioningState string `json:"provisioningState"`
		RunningState      string `json:"runningState"`
		EnvironmentID     string `json:"environmentId"`
		Configuration     struct {
			TriggerType       string      `json:"triggerType"`
			ReplicaTimeout    int         `json:"replicaTimeout"`
			ReplicaRetryLimit int         `json:"replicaRetryLimit"`
			Manual            *sharesView `json:"manualTriggerConfig"`
			Schedule          *sharesView `json:"scheduleTriggerConfig"`
			Event             *sharesView `json:"eventTriggerConfig"`
		} `json:"configuration"`
		Template struct {
			Containers []struct {
				Name  string `json:"name"`
				Image string `json:"image"`
			} `json:"containers"`
		} `json:"template"`
	} `json:"properties"`
}

type sharesView struct {
	CronExpression string `json:"cronExpression"`
	Parallelism    int    `json:"parallelism"`
	Completions    int    `json:"replicaCompletionCount"`
}

// shares returns the parallelism and completion count of the job's trigger.
func (j *jobView) shares() sharesView {
	c := j.Properties.Configuration
	return *cmp.Or(c.Schedule, c.Event, c.Manual, &sharesView{})
}

func newJobCreateCmd(env *Env, s *scope) *cobra.Command {
	var file, environment string
	cmd := &cobra.Command{
		Use:     "create -f FILE",
		Aliases: []string{"update", "up"},
		Short:   "Create or update a job from the YAML that az containerapp job create reads",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return UsageError(fmt.Errorf("-f: want a job's YAML file, or - for stdin"))
			}
			name, body, err := readJob(env, file)
			if err != nil {
				return err
			}
			if body, err = withDefaults(body, s.path("managedEnvironments", environment), cmd.Flags().Changed("environment")); err != nil {
				return err
			}
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			path := s.path("jobs", name)
			if err := c.change(cmd.Context(), http.MethodPut, path, body); err != nil {
				return hint(explainEnvironment(err), "penstock job events %s", name)
			}
			doc, err := c.get(cmd.Context(), path, version())
			if err != nil {
				return err
			}
			return env.show(doc, func(w io.Writer) { fmt.Fprintf(w, "job %s\n", name) })
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "job YAML; - reads stdin")
	cmd.Flags().StringVar(&environment, "environment", defaultEnvironment, "environment; replaces the one that the manifest names")
	return cmd
}

func newJobListCmd(env *Env, s *scope) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the jobs of a resource group",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			docs, err := c.list(cmd.Context(), s.path("jobs"))
			if err != nil {
				return err
			}
			jobs, err := decodeAll[jobView](docs)
			if err != nil {
				return err
			}
			return env.show(docs, func(w io.Writer) {
				var rows [][]string
				for _, j := range jobs {
					p, image := &j.Properties, ""
					if len(p.Template.Containers) > 0 {
						image = p.Template.Containers[0].Image
					}
					rows = append(rows, []string{j.Name, p.ProvisioningState, p.RunningState, p.Configuration.TriggerType, j.shares().CronExpression, image})
				}
				table(w, "NAME PROVISIONED STATE TRIGGER SCHEDULE IMAGE", rows)
			})
		},
	}
}

func newJobShowCmd(env *Env, s *scope) *cobra.Command {
	return &cobra.Command{
		Use:   "show NAME",
		Short: "Show a job",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			doc, err := c.get(cmd.Context(), s.path("jobs", args[0]), version())
			if err != nil {
				return err
			}
			j, err := decode[jobView](doc)
			if err != nil {
				return err
			}
			return env.show(doc, func(w io.Writer) { printJob(w, j) })
		},
	}
}

func printJob(w io.Writer, j *jobView) {
	p, c, shares := &j.Properties, &j.Properties.Configuration, j.shares()
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%-16s %s\n", name, value)
		}
	}
	line("name", j.Name)
	line("id", j.ID)
	line("provisioned", p.ProvisioningState)
	line("state", p.RunningState)
	line("environment", p.EnvironmentID)
	line("trigger", c.TriggerType)
	line("schedule", shares.CronExpression)
	line("replicas", fmt.Sprintf("%d must succeed, %d at a time", shares.Completions, shares.Parallelism))
	line("limits", fmt.Sprintf("%d s a replica, %d retries", c.ReplicaTimeout, c.ReplicaRetryLimit))
	for _, container := range p.Template.Containers {
		line("container", container.Name+": "+container.Image)
	}
}

func newJobDeleteCmd(env *Env, s *scope) *cobra.Command {
	return &cobra.Command{
		Use:   "delete NAME",
		Short: "Delete a job and its executions, stopping those that run",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			path := s.path("jobs", args[0])
			if _, err := c.get(cmd.Context(), path, version()); err != nil {
				return err
			}
			if err := c.change(cmd.Context(), http.MethodDelete, path, nil); err != nil {
				return err
			}
			fmt.Fprintf(env.Stderr, "deleted job %s\n", args[0])
			return nil
		},
	}
}

func newJobSuspendCmd(env *Env, s *scope) *cobra.Command {
	return newJobStateCmd(env, s, "suspend", "Start no executions of a job until it is resumed; running ones continue", "suspended")
}

func newJobResumeCmd(env *Env, s *scope) *cobra.Command {
	return newJobStateCmd(env, s, "resume", "Let a suspended job start executions again", "resumed")
}

func newJobStateCmd(env *Env, s *scope, verb, short, done string) *cobra.Command {
	return &cobra.Command{
		Use:   verb + " NAME",
		Short: short,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			if err := c.change(cmd.Context(), http.MethodPost, s.path("jobs", args[0], verb), nil); err != nil {
				return err
			}
			fmt.Fprintf(env.Stderr, "%s job %s\n", done, args[0])
			return nil
		},
	}
}
