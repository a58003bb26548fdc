package cli

import (
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

// azSettings is what Azure's clients need to know about a server. The token itself is not part of it.
type azSettings struct {
	Endpoint     string `json:"endpoint"`
	Authority    string `json:"authority"`
	MetadataHost string `json:"metadataHost"`
	CA           string `json:"ca,omitempty"`
	Tenant       string `json:"tenant"`
	Client       string `json:"client"`
	Subscription string `json:"subscription"`
	TokenFile    string `json:"tokenFile,omitempty"`
}

// azClient is the name with which clients log in. Every name will do, but some clients check that it is a GUID.
const azClient = "00000000-0000-0000-0000-000000000000"

func newAzEnvCmd(env *Env) *cobra.Command {
	var s scope
	cmd := &cobra.Command{
		Use:   "az-env",
		Short: "Print the settings with which az, Azure's SDKs and Terraform use this server",
		Long: `Print shell commands that set the variables of az, Azure's SDKs and Terraform, and, as comments, the commands with
which az logs in. The token is read from its file when the commands run, and is not printed.`,
		Example: `  eval "$(penstock az-env)"`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := env.azSettings(cmd, s.subscription)
			if err != nil {
				return err
			}
			return env.show(a, func(w io.Writer) { a.write(w) })
		},
	}
	cmd.Flags().StringVar(&s.subscription, "subscription", defaultSubscription, "subscription")
	return cmd
}

func (e *Env) azSettings(cmd *cobra.Command, subscription string) (azSettings, error) {
	c, err := e.connection(cmd)
	if err != nil {
		return azSettings{}, err
	}
	endpoint := strings.TrimSuffix(c.Endpoint, "/")
	at, err := url.Parse(endpoint)
	if err != nil || at.Scheme != "https" || at.Host == "" {
		return azSettings{}, fmt.Errorf("want a server on https, as Azure's clients do, got %q", c.Endpoint)
	}
	if c.CA != "" {
		if c.CA, err = filepath.Abs(c.CA); err != nil {
			return azSettings{}, err
		}
	}
	return azSettings{
		Endpoint: endpoint, Authority: endpoint + "/adfs", MetadataHost: at.Host, CA: c.CA,
		Tenant: "adfs", Client: azClient, Subscription: subscription, TokenFile: c.TokenFile,
	}, nil
}

func (a azSettings) write(w io.Writer) {
	export := func(name, value string) { fmt.Fprintf(w, "export %s=%s\n", name, quoted(value)) }
	token := `"$PENSTOCK_TOKEN"`
	if a.TokenFile != "" {
		token = `"$(cat ` + quoted(a.TokenFile) + `)"`
	}
	if a.CA != "" {
		fmt.Fprintln(w, "# Trust the server's certificate: az and Python, az containerapp exec, Go and Terraform, Node.js")
		for _, name := range []string{"REQUESTS_CA_BUNDLE", "WEBSOCKET_CLIENT_CA_BUNDLE", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"} {
			export(name, a.CA)
		}
	}
	fmt.Fprintln(w, "# Azure's SDKs (EnvironmentCredential, DefaultAzureCredential)")
	export("AZURE_AUTHORITY_HOST", a.Endpoint)
	export("AZURE_TENANT_ID", a.Tenant)
	export("AZURE_CLIENT_ID", a.Client)
	fmt.Fprintln(w, "export AZURE_CLIENT_SECRET="+token)
	export("AZURE_SUBSCRIPTION_ID", a.Subscription)
	fmt.Fprintln(w, "# Terraform's providers azurerm and azapi")
	export("ARM_METADATA_HOSTNAME", a.MetadataHost)
	export("ARM_TENANT_ID", azClient)
	export("ARM_CLIENT_ID", a.Client)
	fmt.Fprintln(w, "export ARM_CLIENT_SECRET="+token)
	export("ARM_SUBSCRIPTION_ID", a.Subscription)
	export("ARM_RESOURCE_PROVIDER_REGISTRATIONS", "none")
	fmt.Fprintln(w, "# az, once:")
	fmt.Fprintf(w, "#   az cloud register -n penstock --endpoint-resource-manager %s --endpoint-active-directory %s --endpoint-active-directory-resource-id %[1]s --endpoint-active-directory-graph-resource-id %[1]s --endpoint-management %[1]s\n",
		quoted(a.Endpoint), quoted(a.Authority))
	fmt.Fprintln(w, "#   az cloud set -n penstock")
	fmt.Fprintf(w, "#   az login --service-principal -u %s -p \"$AZURE_CLIENT_SECRET\" --tenant %s\n", a.Client, a.Tenant)
}

// quoted returns a word as a shell reads it.
func quoted(s string) string {
	safe := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:@%+=,", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !safe(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
