package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// secretView is a secret in the response of listSecrets and in writes.
type secretView struct {
	Name  string `json:"name"`
	Value string `json:"value,omitempty"`
}

func newJobSecretListCmd(env *Env, s *scope) *cobra.Command {
	var values bool
	cmd := &cobra.Command{
		Use:   "list JOB",
		Short: "List the names of a job's secrets",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			_, doc, err := c.call(cmd.Context(), http.MethodPost, s.path("jobs", args[0], "listSecrets"), version(), nil)
			if err != nil {
				return err
			}
			page, err := decode[struct {
				Value []secretView `json:"value"`
			}](doc)
			if err != nil {
				return err
			}
			list := slices.Clone(page.Value)
			for i := range list {
				if !values {
					list[i].Value = ""
				}
			}
			return env.show(list, func(w io.Writer) {
				var rows [][]string
				for _, one := range list {
					rows = append(rows, []string{one.Name, one.Value})
				}
				header := "NAME VALUE"
				if !values {
					header = "NAME"
					for i := range rows {
						rows[i] = rows[i][:1]
					}
				}
				table(w, header, rows)
			})
		},
	}
	cmd.Flags().BoolVar(&values, "show-values", false, "also print the values")
	return cmd
}

func newJobSecretSetCmd(env *Env, s *scope) *cobra.Command {
	return &cobra.Command{
		Use:   "set JOB NAME=VALUE...",
		Short: "Set secrets of a job; NAME=@FILE reads the value from a file, NAME=- from stdin",
		Args:  cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			set := map[string]string{}
			for _, pair := range args[1:] {
				name, value, ok := strings.Cut(pair, "=")
				if !ok || name == "" || value == "" {
					return UsageError(fmt.Errorf("want NAME=VALUE, got %q", pair))
				}
				if file, ok := strings.CutPrefix(value, "@"); ok || value == "-" {
					b, err := readManifest(env, file)
					if err != nil {
						return fmt.Errorf("secret %s: %w", name, err)
					}
					value = string(b)
				}
				set[name] = value
			}
			return changeJobSecrets(cmd, env, s, args[0], func(names []string) ([]secretView, error) {
				var all []secretView
				for _, name := range names {
					all = append(all, secretView{Name: name, Value: set[name]}) // an empty value keeps the current one
					delete(set, name)
				}
				for _, name := range slices.Sorted(maps.Keys(set)) {
					all = append(all, secretView{Name: name, Value: set[name]})
				}
				return all, nil
			})
		},
	}
}

func newJobSecretRemoveCmd(env *Env, s *scope) *cobra.Command {
	return &cobra.Command{
		Use:   "remove JOB NAME...",
		Short: "Remove secrets of a job that its template does not use",
		Args:  cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeJobSecrets(cmd, env, s, args[0], func(names []string) ([]secretView, error) {
				for _, name := range args[1:] {
					if !slices.Contains(names, name) {
						return nil, fmt.Errorf("secret %q of job %s: %w", name, args[0], errNotFound)
					}
				}
				all := []secretView{}
				for _, name := range names {
					if !slices.Contains(args[1:], name) {
						all = append(all, secretView{Name: name})
					}
				}
				return all, nil
			})
		},
	}
}

// changeJobSecrets replaces the secrets of a job. change gets the names of the current secrets.
func changeJobSecrets(cmd *cobra.Command, env *Env, s *scope, job string, change func(names []string) ([]secretView, error)) error {
	c, err := env.client(cmd)
	if err != nil {
		return err
	}
	path := s.path("jobs", job)
	doc, err := c.get(cmd.Context(), path, version())
	if err != nil {
		return err
	}
	now, err := decode[struct {
		Properties struct {
			Configuration struct {
				Secrets []secretView `json:"secrets"`
			} `json:"configuration"`
		} `json:"properties"`
	}](doc)
	if err != nil {
		return err
	}
	var names []string
	for _, one := range now.Properties.Configuration.Secrets {
		names = append(names, one.Name)
	}
	wanted, err := change(names)
	if err != nil {
		return err
	}
	body, err := json.Marshal(map[string]any{"properties": map[string]any{"configuration": map[string]any{"secrets": wanted}}})
	if err != nil {
		return err
	}
	if err := c.change(cmd.Context(), http.MethodPatch, path, body); err != nil {
		return err
	}
	fmt.Fprintf(env.Stderr, "job %s has %d secrets; new executions get them\n", job, len(wanted))
	return nil
}
