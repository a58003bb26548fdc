package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

func newAppEnvCmd(env *Env, s *scope) *cobra.Command {
	cmd := &cobra.Command{Use: "env", Short: "Manage environment variables of an app's container"}
	var container string
	cmd.PersistentFlags().StringVar(&container, "container", "", "container, if the app has several")
	cmd.AddCommand(newAppEnvListCmd(env, s, &container), newAppEnvSetCmd(env, s, &container), newAppEnvRemoveCmd(env, s, &container))
	return group(cmd)
}

// secretPrefix precedes the name of a secret in place of a value, as in az containerapp.
const secretPrefix = "secretref:"

// variables returns the environment variables of a container, as the server sent them.
func variables(container map[string]any) (all []map[string]any) {
	list, _ := container["env"].([]any)
	for _, one := range list {
		if v, ok := one.(map[string]any); ok {
			all = append(all, v)
		}
	}
	return all
}

func newAppEnvListCmd(env *Env, s *scope, container *string) *cobra.Command {
	return &cobra.Command{
		Use:   "list APP",
		Short: "List the environment variables",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			d, err := c.appToChange(cmd.Context(), s, args[0])
			if err != nil {
				return err
			}
			in, err := d.container(args[0], *container)
			if err != nil {
				return err
			}
			all := variables(in)
			if all == nil {
				all = []map[string]any{}
			}
			return env.show(all, func(w io.Writer) {
				var rows [][]string
				for _, v := range all {
					value, _ := v["value"].(string)
					secret, _ := v["secretRef"].(string)
					rows = append(rows, []string{fmt.Sprint(v["name"]), value, secret})
				}
				table(w, "NAME VALUE SECRET", rows)
			})
		},
	}
}

func newAppEnvSetCmd(env *Env, s *scope, container *string) *cobra.Command {
	return &cobra.Command{
		Use:   "set APP NAME=VALUE...",
		Short: "Set environment variables, which makes a new revision; NAME=secretref:SECRET takes the value of a secret",
		Args:  cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			var set []map[string]any
			var names []string
			for _, pair := range args[1:] {
				name, value, ok := strings.Cut(pair, "=")
				if !ok || name == "" {
					return UsageError(fmt.Errorf("want NAME=VALUE or NAME=%sSECRET, got %q", secretPrefix, pair))
				}
				v := map[string]any{"name": name, "value": value}
				if secret, ok := strings.CutPrefix(value, secretPrefix); ok {
					v = map[string]any{"name": name, "secretRef": secret}
				}
				set, names = append(set, v), append(names, name)
			}
			return changeVariables(cmd, env, s, args[0], *container, "set "+strings.Join(names, ", ")+" of app "+args[0], func(now []map[string]any) ([]map[string]any, error) {
				for _, v := range set {
					if i := slices.IndexFunc(now, func(n map[string]any) bool { return n["name"] == v["name"] }); i >= 0 {
						now[i] = v
					} else {
						now = append(now, v)
					}
				}
				return now, nil
			})
		},
	}
}

func newAppEnvRemoveCmd(env *Env, s *scope, container *string) *cobra.Command {
	return &cobra.Command{
		Use:   "remove APP NAME...",
		Short: "Remove environment variables, which makes a new revision",
		Args:  cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeVariables(cmd, env, s, args[0], *container, "removed "+strings.Join(args[1:], ", ")+" of app "+args[0], func(now []map[string]any) ([]map[string]any, error) {
				for _, name := range args[1:] {
					i := slices.IndexFunc(now, func(n map[string]any) bool { return n["name"] == name })
					if i < 0 {
						return nil, hint(fmt.Errorf("variable %q of app %s: %w", name, args[0], errNotFound), "penstock app env list %s", args[0])
					}
					now = slices.Delete(now, i, i+1)
				}
				return now, nil
			})
		},
	}
}

// changeVariables replaces the variables of a container. change gets the current ones.
func changeVariables(cmd *cobra.Command, env *Env, s *scope, app, container, did string, change func([]map[string]any) ([]map[string]any, error)) error {
	c, err := env.client(cmd)
	if err != nil {
		return err
	}
	d, err := c.appToChange(cmd.Context(), s, app)
	if err != nil {
		return err
	}
	in, err := d.container(app, container)
	if err != nil {
		return err
	}
	if in["env"], err = change(variables(in)); err != nil {
		return err
	}
	return env.changeTemplate(cmd, c, s, app, d, map[string]any{"containers": d.containers()}, did)
}

func newAppScaleCmd(env *Env, s *scope) *cobra.Command {
	var least, most int
	cmd := &cobra.Command{
		Use:   "scale APP",
		Short: "Set how many replicas an app has at least and at most, which makes a new revision",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			scale := map[string]any{}
			var says []string
			for _, f := range []struct {
				flag, field, text string
				value             int
			}{{"min-replicas", "minReplicas", "at least", least}, {"max-replicas", "maxReplicas", "at most", most}} {
				if cmd.Flags().Changed(f.flag) {
					scale[f.field] = f.value
					says = append(says, fmt.Sprintf("%s %d", f.text, f.value))
				}
			}
			if len(scale) == 0 {
				return UsageError(errors.New("want --min-replicas, --max-replicas or both"))
			}
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			before, err := c.appToChange(cmd.Context(), s, args[0])
			if err != nil {
				return err
			}
			return env.changeTemplate(cmd, c, s, args[0], before, map[string]any{"scale": scale}, "app "+args[0]+" has "+strings.Join(says, " and ")+" replicas")
		},
	}
	cmd.Flags().IntVar(&least, "min-replicas", 0, "replicas that the app has at least; 0 lets it scale to zero")
	cmd.Flags().IntVar(&most, "max-replicas", 0, "replicas that the app has at most")
	return cmd
}
