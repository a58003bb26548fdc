package cli

import "github.com/spf13/cobra"

func newJobLogsCmd(env *Env, s *scope) *cobra.Command {
	cmd, o := newStreamCmd(env, s, "jobs", "logs", "Print what the containers of a job's executions print", "logstream", "lines", env.printLine)
	cmd.Flags().StringVar(&o.execution, "execution", "", "only lines of this execution")
	cmd.Flags().StringVar(&o.replica, "replica", "", "only lines of this replica")
	return cmd
}

func newJobEventsCmd(env *Env, s *scope) *cobra.Command {
	cmd, o := newStreamCmd(env, s, "jobs", "events", "Print what the platform did with a job and its executions, and why", "eventstream", "events", env.printEvent)
	cmd.Flags().StringVar(&o.execution, "execution", "", "only events of this execution")
	return cmd
}
