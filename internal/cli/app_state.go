package cli

import (
	"context"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"
)

func newAppStartCmd(env *Env, s *scope) *cobra.Command {
	return newAppStateCmd(env, s, "start", "Start a stopped app, and wait until it is ready", "started")
}

func newAppStopCmd(env *Env, s *scope) *cobra.Command {
	return newAppStateCmd(env, s, "stop", "Stop an app; it has no replicas, and requests to it get 404", "stopped")
}

func newAppStateCmd(env *Env, s *scope, verb, short, done string) *cobra.Command {
	return &cobra.Command{
		Use:   verb + " NAME",
		Short: short,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			if err := c.change(cmd.Context(), http.MethodPost, s.path("containerApps", args[0], verb), nil); err != nil {
				return hint(err, "penstock app events %s", args[0])
			}
			fmt.Fprintf(env.Stderr, "%s app %s\n", done, args[0])
			return nil
		},
	}
}

func newAppRestartCmd(env *Env, s *scope) *cobra.Command {
	return &cobra.Command{
		Use:   "restart NAME",
		Short: "Replace the replicas of all active revisions without losing a request",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			_, revisions, err := c.revisions(cmd.Context(), s, args[0])
			if err != nil {
				return err
			}
			active := 0
			for _, r := range revisions {
				if !r.Properties.Active {
					continue
				}
				active++
				if err := c.act(cmd.Context(), s, args[0], r.Name, "restart"); err != nil {
					return err
				}
				fmt.Fprintf(env.Stderr, "restarting revision %s\n", r.Name)
			}
			if active == 0 {
				return hint(fmt.Errorf("app %s has no active revision to restart", args[0]), "penstock revision list %s", args[0])
			}
			return nil
		},
	}
}

// act starts an action on a revision. The server responds before the action has finished.
func (c *Client) act(ctx context.Context, s *scope, app, revision, verb string) error {
	_, _, err := c.call(ctx, http.MethodPost, s.path("containerApps", app, "revisions", revision, verb), version(), nil)
	return err
}
