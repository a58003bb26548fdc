package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"penstock/internal/admin/wire"
)

// domainView is a custom domain of an app.
type domainView struct {
	Name          string `json:"name"`
	BindingType   string `json:"bindingType"`
	CertificateID string `json:"certificateId,omitempty"`
}

// domainsView is the part of an app that holds its custom domains.
type domainsView struct {
	Properties struct {
		EnvironmentID string `json:"environmentId"`
		Configuration struct {
			Ingress *struct {
				CustomDomains []domainView `json:"customDomains"`
			} `json:"ingress"`
		} `json:"configuration"`
	} `json:"properties"`
}

func newHostnameCmd(env *Env, s *scope) *cobra.Command {
	cmd := &cobra.Command{Use: "hostname", Short: "Manage custom host names of apps"}
	cmd.AddCommand(newHostnameAddCmd(env, s), newHostnameListCmd(env, s), newHostnameDeleteCmd(env, s))
	return group(cmd)
}

// domains reads an app's custom domains and its environment.
func (c *Client) domains(ctx context.Context, s *scope, app string) (domains []domainView, environment string, err error) {
	doc, err := c.get(ctx, s.path("containerApps", app), version())
	if err != nil {
		return nil, "", err
	}
	v, err := decode[domainsView](doc)
	if err != nil {
		return nil, "", err
	}
	if v.Properties.Configuration.Ingress == nil {
		return nil, "", fmt.Errorf("app %s has no ingress, so it cannot have host names", app)
	}
	return v.Properties.Configuration.Ingress.CustomDomains, v.Properties.EnvironmentID, nil
}

func (c *Client) setDomains(ctx context.Context, s *scope, app string, domains []domainView) error {
	if domains == nil {
		domains = []domainView{}
	}
	return c.setIngress(ctx, s, app, "customDomains", domains)
}

func named(name string) func(domainView) bool {
	return func(d domainView) bool { return strings.EqualFold(d.Name, name) }
}

func newHostnameAddCmd(env *Env, s *scope) *cobra.Command {
	var certificate string
	cmd := &cobra.Command{
		Use:   "add APP HOSTNAME",
		Short: "Add a custom host name to an app, with a certificate of its environment, and print the URL",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			domains, environment, err := c.domains(cmd.Context(), s, args[0])
			if err != nil {
				return err
			}
			next := domainView{Name: args[1], BindingType: "Disabled"}
			if certificate != "" {
				next.BindingType, next.CertificateID = "SniEnabled", environment+"/certificates/"+certificate
			}
			domains = append(slices.DeleteFunc(domains, named(args[1])), next)
			if err := c.setDomains(cmd.Context(), s, args[0], domains); err != nil {
				return hint(err, "penstock env certificate list")
			}
			status, err := c.status(cmd.Context())
			if err != nil {
				return err
			}
			return env.show(next, func(w io.Writer) { fmt.Fprintln(w, next.url(status)) })
		},
	}
	cmd.Flags().StringVar(&certificate, "certificate", "", "certificate to use (default: none, so no https for the host name)")
	return cmd
}

func (d domainView) url(status *wire.Status) string {
	scheme, port, usual := "https", status.HTTPSPort, 443
	if d.CertificateID == "" {
		scheme, port, usual = "http", status.HTTPPort, 80
	}
	if port == usual {
		return scheme + "://" + d.Name
	}
	return fmt.Sprintf("%s://%s:%d", scheme, d.Name, port)
}

func newHostnameListCmd(env *Env, s *scope) *cobra.Command {
	return &cobra.Command{
		Use:   "list APP",
		Short: "List the custom host names of an app",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			domains, _, err := c.domains(cmd.Context(), s, args[0])
			if err != nil {
				return err
			}
			return env.show(domains, func(w io.Writer) {
				var rows [][]string
				for _, d := range domains {
					rows = append(rows, []string{d.Name, d.BindingType, d.CertificateID[strings.LastIndexByte(d.CertificateID, '/')+1:]})
				}
				table(w, "HOSTNAME BINDING CERTIFICATE", rows)
			})
		},
	}
}

func newHostnameDeleteCmd(env *Env, s *scope) *cobra.Command {
	return &cobra.Command{
		Use:   "delete APP HOSTNAME",
		Short: "Remove a custom host name from an app",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			domains, _, err := c.domains(cmd.Context(), s, args[0])
			if err != nil {
				return err
			}
			left := slices.DeleteFunc(slices.Clone(domains), named(args[1]))
			if len(left) == len(domains) {
				return &APIError{Status: http.StatusNotFound, Message: fmt.Sprintf("app %s has no host name %s", args[0], args[1])}
			}
			if err := c.setDomains(cmd.Context(), s, args[0], left); err != nil {
				return err
			}
			fmt.Fprintf(env.Stderr, "deleted host name %s\n", args[1])
			return nil
		},
	}
}
