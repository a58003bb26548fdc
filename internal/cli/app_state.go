package cli

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

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
	var wait bool
	cmd := &cobra.Command{
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
			active, old := 0, map[string][]string{}
			for _, r := range revisions {
				if !r.Properties.Active {
					continue
				}
				active++
				if wait {
					if old[r.Name], err = c.replicaNames(cmd.Context(), s, args[0], r.Name); err != nil {
						return err
					}
				}
				if err := c.act(cmd.Context(), s, args[0], r.Name, "restart"); err != nil {
					return err
				}
				fmt.Fprintf(env.Stderr, "restarting revision %s\n", r.Name)
			}
			if active == 0 {
				return hint(fmt.Errorf("app %s has no active revision to restart", args[0]), "penstock revision list %s", args[0])
			}
			return env.awaitRestarts(cmd.Context(), c, s, args[0], old)
		},
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until the new replicas are ready and the old ones are gone")
	return cmd
}

// awaitRestarts waits until the replicas of revisions have been replaced. old holds the names of those from before.
func (e *Env) awaitRestarts(ctx context.Context, c *Client, s *scope, app string, old map[string][]string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, revisionLimit, fmt.Errorf("the new replicas were not ready within %s", revisionLimit))
	defer cancel()
	for _, revision := range slices.Sorted(maps.Keys(old)) {
		began := time.Now()
		if err := c.awaitRestart(ctx, s, app, revision, old[revision]); err != nil {
			return hint(fmt.Errorf("restart revision %s: %w", revision, err), "penstock app events %s", app)
		}
		fmt.Fprintf(e.Stderr, "revision %s has new replicas after %s\n", revision, time.Since(began).Round(time.Millisecond))
	}
	return nil
}

// awaitRestart waits until none of the replicas in old is left and as many new ones are ready.
func (c *Client) awaitRestart(ctx context.Context, s *scope, app, revision string, old []string) error {
	return poll(ctx, func() (bool, error) {
		docs, err := c.list(ctx, s.path("containerApps", app, "revisions", revision, "replicas"))
		if err != nil {
			return false, err
		}
		replicas, err := decodeAll[replicaView](docs)
		if err != nil {
			return false, err
		}
		ready := 0
		for _, r := range replicas {
			if slices.Contains(old, r.Name) {
				return false, nil
			}
			if r.ready() {
				ready++
			}
		}
		return ready == len(replicas), nil
	})
}

// replicaNames lists the replicas of a revision.
func (c *Client) replicaNames(ctx context.Context, s *scope, app, revision string) (names []string, err error) {
	docs, err := c.list(ctx, s.path("containerApps", app, "revisions", revision, "replicas"))
	if err != nil {
		return nil, err
	}
	views, err := decodeAll[replicaView](docs)
	for _, r := range views {
		names = append(names, r.Name)
	}
	return names, err
}

// ready reports whether the replica gets requests.
func (r *replicaView) ready() bool {
	return r.Properties.RunningState == "Running" && !slices.ContainsFunc(r.Properties.Containers, func(c replicaContainerView) bool { return !c.Ready })
}

// act starts an action on a revision. The server responds before the action has finished.
func (c *Client) act(ctx context.Context, s *scope, app, revision, verb string) error {
	_, _, err := c.call(ctx, http.MethodPost, s.path("containerApps", app, "revisions", revision, verb), version(), nil)
	return err
}
