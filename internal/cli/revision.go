package cli

import (
	"context"
	"encoding/json"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"
)

func newRevisionCmd(env *Env) *cobra.Command {
	cmd := &cobra.Command{Use: "revision", Short: "Manage revisions of an app"}
	s := &scope{}
	s.bind(cmd.PersistentFlags())
	cmd.AddCommand(newRevisionListCmd(env, s), newRevisionActivateCmd(env, s), newRevisionDeactivateCmd(env, s), newRevisionRestartCmd(env, s), newSetModeCmd(env, s))
	return group(cmd)
}

func newRevisionListCmd(env *Env, s *scope) *cobra.Command {
	return &cobra.Command{
		Use:   "list APP",
		Short: "List the revisions of an app",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			docs, revisions, err := c.revisions(cmd.Context(), s, args[0])
			if err != nil {
				return err
			}
			return env.show(docs, func(w io.Writer) {
				var rows [][]string
				for _, r := range revisions {
					p := &r.Properties
					active := "no"
					if p.Active {
						active = "yes"
					}
					rows = append(rows, []string{
						r.Name, active, strconv.Itoa(p.TrafficWeight) + "%", strconv.Itoa(p.Replicas),
						p.RunningState, age(p.CreatedTime, time.Now()), p.ProvisioningError,
					})
				}
				table(w, "NAME ACTIVE TRAFFIC REPLICAS STATE AGE DETAILS", rows)
			})
		},
	}
}

// revisions lists an app's revisions, as the server sent them and decoded.
func (c *Client) revisions(ctx context.Context, s *scope, app string) (docs []json.RawMessage, views []revisionView, err error) {
	if docs, err = c.list(ctx, s.path("containerApps", app, "revisions")); err != nil {
		return nil, nil, err
	}
	views, err = decodeAll[revisionView](docs)
	return docs, views, err
}
