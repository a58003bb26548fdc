package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newRevisionActivateCmd(env *Env, s *scope) *cobra.Command {
	return newRevisionStateCmd(env, s, "activate", "Activate a revision, which starts its replicas", "activating")
}

func newRevisionDeactivateCmd(env *Env, s *scope) *cobra.Command {
	return newRevisionStateCmd(env, s, "deactivate", "Deactivate a revision; its replicas stop when their requests have ended", "deactivating")
}

func newRevisionRestartCmd(env *Env, s *scope) *cobra.Command {
	return newRevisionStateCmd(env, s, "restart", "Replace a revision's replicas without losing a request", "restarting")
}

func newRevisionStateCmd(env *Env, s *scope, verb, short, doing string) *cobra.Command {
	return &cobra.Command{
		Use:   verb + " APP REVISION",
		Short: short,
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			if err := c.act(cmd.Context(), s, args[0], args[1], verb); err != nil {
				return err
			}
			fmt.Fprintf(env.Stderr, "%s revision %s\n", doing, args[1])
			return nil
		},
	}
}
