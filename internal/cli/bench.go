package cli

import "github.com/spf13/cobra"

func newBenchCmd(env *Env) *cobra.Command {
	cmd := &cobra.Command{Use: "bench", Short: "Measure what Penstock and the apps that it serves can do"}
	cmd.AddCommand(newBenchEngineCmd(env), newBenchLoadCmd(env), newBenchProxyCmd(env), newBenchPartCmd(env))
	return group(cmd)
}
