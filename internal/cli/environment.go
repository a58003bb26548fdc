package cli

import (
	"io"

	"github.com/spf13/cobra"
)

func newEnvironmentCmd(env *Env) *cobra.Command {
	cmd := &cobra.Command{Use: "env", Short: "Manage environments, their workload profiles, storages and certificates"}
	s := &scope{}
	s.bind(cmd.PersistentFlags())
	cmd.AddCommand(newEnvironmentListCmd(env, s), newEnvironmentShowCmd(env, s), newEnvironmentCreateCmd(env, s), newEnvironmentUpdateCmd(env, s),
		newEnvironmentDeleteCmd(env, s), newStorageCmd(env, s), newCertificateCmd(env, s))
	return group(cmd)
}

func newEnvironmentListCmd(env *Env, s *scope) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the environments of a resource group",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			docs, err := c.list(cmd.Context(), s.path("managedEnvironments"))
			if err != nil {
				return err
			}
			environments, err := decodeAll[environmentView](docs)
			if err != nil {
				return err
			}
			return env.show(docs, func(w io.Writer) {
				var rows [][]string
				for _, v := range environments {
					rows = append(rows, []string{v.Name, v.Properties.ProvisioningState, v.Location, v.Properties.DefaultDomain})
				}
				table(w, "NAME PROVISIONED LOCATION DOMAIN", rows)
			})
		},
	}
}
