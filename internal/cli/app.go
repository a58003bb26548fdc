package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/spf13/cobra"

	"penstock/internal/admin/wire"
	"penstock/internal/resource"
)

func newAppCmd(env *Env) *cobra.Command {
	cmd := &cobra.Command{Use: "app", Short: "Manage container apps"}
	s := &scope{}
	s.bind(cmd.PersistentFlags())
	cmd.AddCommand(newAppListCmd(env, s), newAppShowCmd(env, s), newAppDeleteCmd(env, s),
		newAppStartCmd(env, s), newAppStopCmd(env, s), newAppRestartCmd(env, s), newAppExplainCmd(env, s), newAppLogsCmd(env, s), newAppEventsCmd(env, s), newAppRequestsCmd(env, s), newAppExecCmd(env, s), newHostnameCmd(env, s), newIngressCmd(env, s),
		newSecretCmd(env, s, appSecrets), newAppEnvCmd(env, s), newAppScaleCmd(env, s), newTrafficCmd(env, s), newRollbackCmd(env, s))
	return group(cmd)
}

// group makes a noun that is called without a verb fail as a usage error. Main reports a verb that does not exist.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.RunE = func(*cobra.Command, []string) error { return UsageError(errors.New("a command is missing")) }
	return cmd
}

func newAppListCmd(env *Env, s *scope) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the apps of a resource group",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			docs, err := c.list(cmd.Context(), s.path("containerApps"))
			if err != nil {
				return err
			}
			apps, err := decodeAll[appView](docs)
			if err != nil {
				return err
			}
			status, err := c.status(cmd.Context())
			if err != nil {
				return err
			}
			return env.show(docs, func(w io.Writer) {
				var rows [][]string
				for _, a := range apps {
					p := &a.Properties
					rows = append(rows, []string{a.Name, p.ProvisioningState, p.RunningStatus, p.LatestReadyRevisionName, a.images(), a.url(status)})
				}
				table(w, "NAME PROVISIONED STATUS REVISION IMAGE URL", rows)
			})
		},
	}
}

func newAppShowCmd(env *Env, s *scope) *cobra.Command {
	return &cobra.Command{
		Use:   "show NAME",
		Short: "Show an app",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			doc, err := c.get(cmd.Context(), s.path("containerApps", args[0]), version())
			if err != nil {
				return err
			}
			a, err := decode[appView](doc)
			if err != nil {
				return err
			}
			status, err := c.status(cmd.Context())
			if err != nil {
				return err
			}
			return env.show(doc, func(w io.Writer) { printApp(w, a, status) })
		},
	}
}

func printApp(w io.Writer, a *appView, status *wire.Status) {
	p := &a.Properties
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%-16s %s\n", name, value)
		}
	}
	line("name", a.Name)
	line("id", a.ID)
	line("url", a.url(status))
	line("host port", a.hostURL())
	for _, u := range a.additional(status) {
		line("additional port", u)
	}
	line("provisioned", p.ProvisioningState)
	line("error", p.ProvisioningError)
	line("status", p.RunningStatus)
	line("environment", p.EnvironmentID)
	line("revision", p.LatestRevisionName)
	line("ready revision", p.LatestReadyRevisionName)
	if in := p.Configuration.Ingress; in != nil {
		port := "the port that the app listens on"
		if in.TargetPort != 0 {
			port = strconv.Itoa(in.TargetPort)
		}
		if in.TargetScheme == resource.SchemeHTTPS {
			port += ", TLS"
		}
		line("target port", port)
		for _, share := range in.Traffic {
			to := share.RevisionName
			if share.LatestRevision {
				to = "the latest ready revision"
			}
			if share.Label != "" {
				to += ", label " + share.Label
			}
			line("traffic", fmt.Sprintf("%d%% to %s", share.Weight, to))
			if share.Label != "" {
				line("label "+share.Label, a.labelURL(status, share.Label))
			}
		}
	}
	if p.Template.Scale.Max != nil {
		least := 0 // not given reads back as null
		if p.Template.Scale.Min != nil {
			least = *p.Template.Scale.Min
		}
		line("replicas", fmt.Sprintf("%d to %d", least, *p.Template.Scale.Max))
	}
	for _, c := range p.Template.Containers {
		line("container", fmt.Sprintf("%s: %s, %g vCPU, %s", c.Name, c.Image, c.Resources.CPU, c.Resources.Memory))
	}
}

func newAppDeleteCmd(env *Env, s *scope) *cobra.Command {
	return &cobra.Command{
		Use:   "delete NAME",
		Short: "Delete an app, its revisions and its replicas",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			path := s.path("containerApps", args[0])
			// ARM reports success for deleting what does not exist; a user who typed a name wants to know that it does not.
			if _, err := c.get(cmd.Context(), path, version()); err != nil {
				return err
			}
			if err := c.change(cmd.Context(), http.MethodDelete, path, nil); err != nil {
				return err
			}
			fmt.Fprintf(env.Stderr, "deleted app %s\n", args[0])
			env.refreshHosts(cmd.Context(), c, s)
			return nil
		},
	}
}

// status fetches the server's own status.
func (c *Client) status(ctx context.Context) (*wire.Status, error) {
	doc, err := c.get(ctx, wire.StatusPath, nil)
	if err != nil {
		return nil, err
	}
	return decode[wire.Status](doc)
}
