package cli

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// secretView is a secret in the response of listSecrets and in writes.
type secretView struct {
	Name  string `json:"name"`
	Value string `json:"value,omitempty"`
}

// secretOwner is what has secrets: apps and jobs.
type secretOwner struct {
	kind  string // containerApps, jobs
	noun  string // app, job
	after string // what a change needs to take effect, with %s for the name
}

var (
	appSecrets = secretOwner{"containerApps", "app", "running replicas keep the values that they started with: penstock app restart %s"}
	jobSecrets = secretOwner{"jobs", "job", "new executions get the values"}
)

func newSecretCmd(env *Env, s *scope, o secretOwner) *cobra.Command {
	cmd := &cobra.Command{Use: "secret", Short: "Manage secrets of " + map[string]string{"app": "an app", "job": "a job"}[o.noun]}
	cmd.AddCommand(newSecretListCmd(env, s, o), newSecretSetCmd(env, s, o), newSecretRemoveCmd(env, s, o))
	return group(cmd)
}

func newSecretListCmd(env *Env, s *scope, o secretOwner) *cobra.Command {
	var values bool
	cmd := &cobra.Command{
		Use:   "list " + strings.ToUpper(o.noun),
		Short: "List the names of secrets",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			_, doc, err := c.call(cmd.Context(), http.MethodPost, s.path(o.kind, args[0], "listSecrets"), version(), nil)
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

func newSecretSetCmd(env *Env, s *scope, o secretOwner) *cobra.Command {
	return &cobra.Command{
		Use:   "set " + strings.ToUpper(o.noun) + " NAME | NAME=@FILE...",
		Short: "Set secrets; NAME alone reads the value from standard input, NAME=@FILE from a file",
		Long: `Set secrets. NAME alone reads the value from standard input, without showing it on a terminal; NAME=@FILE reads it from a
file. A value is not taken from the command line, which every user of the machine can see. One line break at the end of
a value is left out.`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			set := map[string]string{}
			for _, arg := range args[1:] {
				name, from, given := strings.Cut(arg, "=")
				file, isFile := strings.CutPrefix(from, "@")
				switch {
				case name == "" || isFile && file == "":
					return UsageError(fmt.Errorf("want NAME or NAME=@FILE, got %q", arg))
				case !given || from == "-":
					file = "-"
				case !isFile:
					return hint(UsageError(fmt.Errorf("secret %s: the value is on the command line, which every user of this machine can see; want NAME=@FILE, or NAME alone and the value on standard input", name)),
						"%s %s %s, and type or pipe the value", cmd.CommandPath(), args[0], name)
				}
				value, err := readSecret(env, name, file)
				if err != nil {
					return fmt.Errorf("secret %s: %w", name, err)
				}
				set[name] = value
			}
			changed := slices.Sorted(maps.Keys(set))
			err := o.change(cmd, env, s, args[0], func(names []string) ([]secretView, error) {
				var all []secretView
				for _, name := range names {
					all = append(all, secretView{Name: name, Value: set[name]}) // without a value it keeps the current one
					delete(set, name)
				}
				for _, name := range slices.Sorted(maps.Keys(set)) {
					all = append(all, secretView{Name: name, Value: set[name]})
				}
				return all, nil
			})
			if err != nil {
				return err
			}
			fmt.Fprintf(env.Stderr, "set %s of %s %s\n%s\n", strings.Join(changed, ", "), o.noun, args[0], o.next(args[0]))
			return nil
		},
	}
}

// readSecret reads a value from a file, or from standard input if the name is -.
func readSecret(env *Env, name, file string) (string, error) {
	var raw []byte
	var err error
	if in, ok := env.Stdin.(*os.File); ok && file == "-" && term.IsTerminal(int(in.Fd())) {
		fmt.Fprintf(env.Stderr, "value of %s: ", name)
		raw, err = term.ReadPassword(int(in.Fd()))
		fmt.Fprintln(env.Stderr)
	} else {
		raw, err = readManifest(env, file)
	}
	if err != nil {
		return "", err
	}
	value := strings.TrimSuffix(strings.TrimSuffix(string(raw), "\n"), "\r")
	if value == "" {
		return "", errors.New("want a value, got none")
	}
	return value, nil
}

func (o secretOwner) next(name string) string {
	if strings.Contains(o.after, "%s") {
		return fmt.Sprintf(o.after, name)
	}
	return o.after
}

func newSecretRemoveCmd(env *Env, s *scope, o secretOwner) *cobra.Command {
	return &cobra.Command{
		Use:   "remove " + strings.ToUpper(o.noun) + " NAME...",
		Short: "Remove secrets that the template does not use",
		Args:  cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			err := o.change(cmd, env, s, args[0], func(names []string) ([]secretView, error) {
				for _, name := range args[1:] {
					if !slices.Contains(names, name) {
						return nil, fmt.Errorf("secret %q of %s %s: %w", name, o.noun, args[0], errNotFound)
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
			if err != nil {
				return err
			}
			fmt.Fprintf(env.Stderr, "removed %s of %s %s\n", strings.Join(args[1:], ", "), o.noun, args[0])
			return nil
		},
	}
}

// change replaces the secrets. next gets the names of the current ones.
func (o secretOwner) change(cmd *cobra.Command, env *Env, s *scope, name string, next func(names []string) ([]secretView, error)) error {
	c, err := env.client(cmd)
	if err != nil {
		return err
	}
	path := s.path(o.kind, name)
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
	wanted, err := next(names)
	if err != nil {
		return err
	}
	return c.patch(cmd.Context(), path, map[string]any{"configuration": map[string]any{"secrets": wanted}})
}
