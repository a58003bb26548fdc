package cli

import (
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"penstock/internal/admin/wire"
)

func newJobExplainCmd(env *Env, s *scope) *cobra.Command {
	return &cobra.Command{
		Use:   "explain NAME",
		Short: "Explain what the events of a job ask for",
		Long:  `Show for each rule of a job that events start its value, its target, and how many executions it asks for, or why it has no value.`,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			id := s.path("jobs", args[0])
			if _, err := c.get(cmd.Context(), id, version()); err != nil {
				return err
			}
			doc, err := c.get(cmd.Context(), wire.ScalePath, url.Values{"job": {id}})
			if err != nil {
				return err
			}
			scale, err := decode[wire.JobScale](doc)
			if err != nil {
				return err
			}
			return env.show(doc, func(w io.Writer) {
				if len(scale.Rules) == 0 {
					fmt.Fprintln(w, "Events do not start this job: its trigger is another one, or it is suspended.")
					return
				}
				printRules(w, scale.Rules, time.Now())
			})
		},
	}
}
