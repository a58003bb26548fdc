package cli

import "github.com/spf13/cobra"

func newBenchCmd(env *Env) *cobra.Command {
	cmd := &cobra.Command{Use: "bench", Short: "Measure the performance of Penstock and of its apps"}
	cmd.AddCommand(newBenchEngineCmd(env), newBenchLoadCmd(env), newBenchProxyCmd(env), newBenchWakeCmd(env), newBenchPartCmd(env),
		newBenchBurstCmd(env), newBenchRolloutCmd(env), newBenchStepCmd(env), newBenchTraceCmd(env), newBenchTrickleCmd(env))
	return group(cmd)
}
