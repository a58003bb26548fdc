package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// certificateView is a certificate of an environment.
type certificateView struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Location   string `json:"location"`
	Properties struct {
		Names          []string  `json:"subjectAlternativeNames"`
		Issuer         string    `json:"issuer"`
		Thumbprint     string    `json:"thumbprint"`
		ExpirationDate time.Time `json:"expirationDate"`
	} `json:"properties"`
}

func newCertificateCmd(env *Env, s *scope) *cobra.Command {
	cmd := &cobra.Command{Use: "certificate", Short: "Manage certificates for custom domains of an environment's apps"}
	var environment string
	cmd.PersistentFlags().StringVar(&environment, "env", defaultEnvironment, "environment")
	cmd.AddCommand(newCertificateUploadCmd(env, s, &environment), newCertificateListCmd(env, s, &environment), newCertificateDeleteCmd(env, s, &environment))
	return group(cmd)
}

func newCertificateUploadCmd(env *Env, s *scope, environment *string) *cobra.Command {
	var name, passwordFile string
	cmd := &cobra.Command{
		Use:   "upload FILE",
		Short: "Upload a certificate with its key (PFX or PEM), replacing one of the same name at once",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			file, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			password := ""
			if passwordFile != "" {
				b, err := os.ReadFile(passwordFile)
				if err != nil {
					return err
				}
				password = strings.TrimRight(string(b), "\r\n")
			}
			if name == "" {
				name = nameOf(args[0])
			}
			body, err := json.Marshal(map[string]any{"properties": map[string]any{"value": file, "password": password}})
			if err != nil {
				return err
			}
			_, doc, err := c.call(cmd.Context(), http.MethodPut, s.path("managedEnvironments", *environment, "certificates", name), version(), body)
			if err != nil {
				return err
			}
			v, err := decode[certificateView](doc)
			if err != nil {
				return err
			}
			return env.show(doc, func(w io.Writer) { certificateTable(w, []certificateView{*v}) })
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "name of the certificate (default: the file's name)")
	cmd.Flags().StringVar(&passwordFile, "password-file", "", "file with the password of the PFX file")
	return cmd
}

var notInNames = regexp.MustCompile(`[^a-zA-Z0-9]+`)

// nameOf derives a certificate's name from its file name.
func nameOf(file string) string {
	base := filepath.Base(file)
	return strings.Trim(notInNames.ReplaceAllString(strings.TrimSuffix(base, filepath.Ext(base)), "-"), "-")
}

func newCertificateListCmd(env *Env, s *scope, environment *string) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the certificates of an environment",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			docs, err := c.list(cmd.Context(), s.path("managedEnvironments", *environment, "certificates"))
			if err != nil {
				return err
			}
			all, err := decodeAll[certificateView](docs)
			if err != nil {
				return err
			}
			return env.show(docs, func(w io.Writer) { certificateTable(w, all) })
		},
	}
}

func certificateTable(w io.Writer, all []certificateView) {
	var rows [][]string
	for _, v := range all {
		rows = append(rows, []string{v.Name, strings.Join(v.Properties.Names, ","), v.Properties.ExpirationDate.Format(time.DateOnly), v.Properties.Thumbprint})
	}
	table(w, "NAME FOR EXPIRES THUMBPRINT", rows)
}

func newCertificateDeleteCmd(env *Env, s *scope, environment *string) *cobra.Command {
	return &cobra.Command{
		Use:   "delete NAME",
		Short: "Delete a certificate that no app uses",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			path := s.path("managedEnvironments", *environment, "certificates", args[0])
			if _, err := c.get(cmd.Context(), path, version()); err != nil {
				return err
			}
			if err := c.change(cmd.Context(), http.MethodDelete, path, nil); err != nil {
				return err
			}
			fmt.Fprintf(env.Stderr, "deleted certificate %s\n", args[0])
			return nil
		},
	}
}
