package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"
)

func newReplicaCmd(env *Env) *cobra.Command {
	cmd := &cobra.Command{Use: "replica", Short: "List the replicas of an app"}
	s := &scope{}
	s.bind(cmd.PersistentFlags())
	cmd.AddCommand(newReplicaListCmd(env, s))
	return group(cmd)
}

func newReplicaListCmd(env *Env, s *scope) *cobra.Command {
	var revision string
	cmd := &cobra.Command{
		Use:   "list APP",
		Short: "List the replicas of an app's active revisions",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			names := []string{revision}
			if revision == "" {
				_, revisions, err := c.revisions(cmd.Context(), s, args[0])
				if err != nil {
					return err
				}
				names = nil
				for _, r := range revisions {
					if r.Properties.Active {
						names = append(names, r.Name)
					}
				}
			}
			all := []json.RawMessage{}
			for _, name := range names {
				docs, err := c.list(cmd.Context(), s.path("containerApps", args[0], "revisions", name, "replicas"))
				if err != nil {
					return err
				}
				all = append(all, docs...)
			}
			replicas, err := decodeAll[replicaView](all)
			if err != nil {
				return err
			}
			return env.show(all, func(w io.Writer) {
				var rows [][]string
				for _, r := range replicas {
					p := &r.Properties
					ready, restarts := 0, 0
					for _, c := range p.Containers {
						restarts += c.RestartCount
						if c.Ready {
							ready++
						}
					}
					rows = append(rows, []string{
						r.Name, p.RunningState, fmt.Sprintf("%d/%d", ready, len(p.Containers)), strconv.Itoa(restarts),
						age(p.CreatedTime, time.Now()), p.RunningStateDetails,
					})
				}
				table(w, "NAME STATE READY RESTARTS AGE DETAILS", rows)
			})
		},
	}
	cmd.Flags().StringVar(&revision, "revision", "", "only replicas of this revision")
	return cmd
}
