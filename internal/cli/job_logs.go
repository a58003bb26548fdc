package cli

import "github.com/spf13/cobra"

func newJobLogsCmd(env *Env, s *scope) *cobra.Command {
	cmd, o := newStreamCmd(env, s, "jobs", "logs", "Print the console output of a job's executions", "logstream", "lines", env.printLine)
	cmd.Flags().StringVar(&o.execution, "execution", "", "only lines of this execution")
	cmd.Flags().StringVar(&o.replica, "replica", "", "only lines of this replica")
	return cmd
}

func newJobEventsCmd(env *Env, s *scope) *cobra.Command {
	cmd, o := newStreamCmd(env, s, "jobs", "events", "Print the system events of a job and its executions", "eventstream", "events", env.printEvent)
	cmd.Flags().StringVar(&o.execution, "execution", "", "only events of this execution")
	return cmd
}
