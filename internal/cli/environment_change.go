package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"penstock/internal/resource"
)

// profileFlag adds the flag for workload profiles.
func profileFlag(fs *pflag.FlagSet, values *[]string) {
	fs.StringArrayVar(values, "workload-profile", nil, "workload profile to add or replace, as NAME:TYPE[:MINIMUM:MAXIMUM] such as D4:D4; can be repeated")
}

// parseProfiles reads the values of --workload-profile.
func parseProfiles(values []string) ([]profileView, error) {
	var profiles []profileView
	for _, value := range values {
		p, err := parseProfile(value)
		if err != nil {
			return nil, UsageError(fmt.Errorf("--workload-profile: %w", err))
		}
		profiles = append(profiles, p)
	}
	return profiles, nil
}

func parseProfile(value string) (profileView, error) {
	parts := strings.Split(value, ":")
	if len(parts) != 2 && len(parts) != 4 || parts[0] == "" {
		return profileView{}, fmt.Errorf("want NAME:TYPE or NAME:TYPE:MINIMUM:MAXIMUM as in large:E8, got %q", value)
	}
	typ, known := resource.FindProfileType(parts[1])
	if !known {
		var names []string
		for _, t := range resource.ProfileTypes() {
			names = append(names, t.Name)
		}
		return profileView{}, fmt.Errorf("want a type that is one of %s, got %q", strings.Join(names, ", "), parts[1])
	}
	p := profileView{Name: parts[0], Type: typ.Name}
	if !typ.Dedicated {
		if len(parts) == 4 {
			return profileView{}, fmt.Errorf("want %s:%s, as only dedicated types have nodes to count, got %q", parts[0], typ.Name, value)
		}
		return p, nil
	}
	least, most := 0, 1
	if len(parts) == 4 {
		var err1, err2 error
		least, err1 = strconv.Atoi(parts[2])
		most, err2 = strconv.Atoi(parts[3])
		if err1 != nil || err2 != nil {
			return profileView{}, fmt.Errorf("want whole numbers of nodes as in large:E8:0:1, got %q", value)
		}
	}
	p.Min, p.Max = &least, &most
	return p, nil
}

// mergeProfiles adds profiles to those that an environment has, which they replace by name.
func mergeProfiles(has, add []profileView) []profileView {
	if len(has) == 0 {
		// In Azure, apps without a profile need this one once there are others.
		has = []profileView{{Name: resource.Consumption, Type: resource.Consumption}}
	}
	for _, p := range add {
		i := slices.IndexFunc(has, func(h profileView) bool { return strings.EqualFold(h.Name, p.Name) })
		if i < 0 {
			has = append(has, p)
		} else {
			has[i] = p
		}
	}
	return has
}

func (c *Client) environment(ctx context.Context, s *scope, name string) (doc json.RawMessage, v *environmentView, err error) {
	if doc, err = c.get(ctx, s.path("managedEnvironments", name), version()); err != nil {
		return nil, nil, err
	}
	v, err = decode[environmentView](doc)
	return doc, v, err
}

func newEnvironmentShowCmd(env *Env, s *scope) *cobra.Command {
	return &cobra.Command{
		Use:   "show NAME",
		Short: "Show an environment and its workload profiles",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			return env.showEnvironment(cmd.Context(), c, s, args[0])
		},
	}
}

func (e *Env) showEnvironment(ctx context.Context, c *Client, s *scope, name string) error {
	doc, v, err := c.environment(ctx, s, name)
	if err != nil {
		return err
	}
	return e.show(doc, func(w io.Writer) {
		fmt.Fprintf(w, "%-16s %s\n%-16s %s\n%-16s %s\n", "name", v.Name, "domain", v.Properties.DefaultDomain, "provisioned", v.Properties.ProvisioningState)
		for _, p := range v.Properties.Profiles {
			nodes := ""
			if p.Min != nil && p.Max != nil {
				nodes = fmt.Sprintf(", %d to %d nodes", *p.Min, *p.Max)
			}
			fmt.Fprintf(w, "%-16s %s: %s%s\n", "profile", p.Name, p.Type, nodes)
		}
	})
}

func newEnvironmentCreateCmd(env *Env, s *scope) *cobra.Command {
	var profiles []string
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Create an environment",
		Long: `Create an environment. Its apps call each other by name and are isolated from those of other environments.

Without a workload profile, replicas have at most 4 vCPUs and 8Gi. A profile of a dedicated type, D4 to D32 (4Gi for each
vCPU) or E4 to E32 (8Gi), allows any size up to that of the type; apps name it in workloadProfileName.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			add, err := parseProfiles(profiles)
			if err != nil {
				return err
			}
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			_, _, err = c.environment(ctx, s, args[0])
			if err == nil {
				return hint(fmt.Errorf("the environment %s exists already", args[0]), "penstock env update %s --workload-profile NAME:TYPE", args[0])
			}
			if api, ok := errors.AsType[*APIError](err); !ok || api.Status != http.StatusNotFound {
				return err
			}
			properties := map[string]any{}
			if len(add) > 0 {
				properties["workloadProfiles"] = mergeProfiles(nil, add)
			}
			body, err := json.Marshal(map[string]any{"location": "Local", "properties": properties})
			if err != nil {
				return err
			}
			if err := c.change(ctx, http.MethodPut, s.path("managedEnvironments", args[0]), body); err != nil {
				return err
			}
			return env.showEnvironment(ctx, c, s, args[0])
		},
	}
	profileFlag(cmd.Flags(), &profiles)
	return cmd
}

func newEnvironmentUpdateCmd(env *Env, s *scope) *cobra.Command {
	var profiles, remove []string
	cmd := &cobra.Command{
		Use:   "update NAME",
		Short: "Add, replace or remove workload profiles of an environment",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			add, err := parseProfiles(profiles)
			if err != nil {
				return err
			}
			if len(add) == 0 && len(remove) == 0 {
				return UsageError(errors.New("nothing to change; want --workload-profile or --remove-workload-profile"))
			}
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			_, v, err := c.environment(ctx, s, args[0])
			if err != nil {
				return err
			}
			all := mergeProfiles(v.Properties.Profiles, add)
			for _, name := range remove {
				n := len(all)
				all = slices.DeleteFunc(all, func(p profileView) bool { return strings.EqualFold(p.Name, name) })
				if len(all) == n {
					return fmt.Errorf("--remove-workload-profile: the environment %s has no workload profile %q: %w", args[0], name, errNotFound)
				}
			}
			if err := c.patch(ctx, s.path("managedEnvironments", args[0]), map[string]any{"workloadProfiles": all}); err != nil {
				return err
			}
			return env.showEnvironment(ctx, c, s, args[0])
		},
	}
	profileFlag(cmd.Flags(), &profiles)
	cmd.Flags().StringArrayVar(&remove, "remove-workload-profile", nil, "name of a workload profile to remove; can be repeated")
	return cmd
}

func newEnvironmentDeleteCmd(env *Env, s *scope) *cobra.Command {
	return &cobra.Command{
		Use:   "delete NAME",
		Short: "Delete an environment that has no apps and no jobs",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			if _, _, err := c.environment(cmd.Context(), s, args[0]); err != nil {
				return err
			}
			if err := c.change(cmd.Context(), http.MethodDelete, s.path("managedEnvironments", args[0]), nil); err != nil {
				return err
			}
			fmt.Fprintf(env.Stderr, "deleted environment %s\n", args[0])
			return nil
		},
	}
}
