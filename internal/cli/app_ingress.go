package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

// ingressView is the part of an app that restricts its requests.
type ingressView struct {
	Properties struct {
		Configuration struct {
			Ingress *struct {
				Rules []ruleView `json:"ipSecurityRestrictions"`
				CORS  *corsView  `json:"corsPolicy"`
			} `json:"ingress"`
		} `json:"configuration"`
	} `json:"properties"`
}

type ruleView struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	Range       string `json:"ipAddressRange"`
	Action      string `json:"action"`
}

type corsView struct {
	Origins     []string `json:"allowedOrigins"`
	Methods     []string `json:"allowedMethods,omitempty"`
	Headers     []string `json:"allowedHeaders,omitempty"`
	Exposed     []string `json:"exposeHeaders,omitempty"`
	MaxAge      *int     `json:"maxAge,omitempty"`
	Credentials bool     `json:"allowCredentials"`
}

func newIngressCmd(env *Env, s *scope) *cobra.Command {
	rules := &cobra.Command{Use: "access-restriction", Short: "Allow or deny client IP ranges"}
	rules.AddCommand(newRuleSetCmd(env, s), newRuleListCmd(env, s), newRuleRemoveCmd(env, s))
	cors := &cobra.Command{Use: "cors", Short: "Allow web pages of other origins to call the app (CORS)"}
	cors.AddCommand(newCORSEnableCmd(env, s), newCORSDisableCmd(env, s), newCORSShowCmd(env, s))
	sticky := &cobra.Command{Use: "sticky-sessions", Short: "Send each client to the same replica every time"}
	sticky.AddCommand(newStickySetCmd(env, s))
	cmd := &cobra.Command{Use: "ingress", Short: "Manage an app's ingress: IP restrictions, CORS, sticky sessions"}
	cmd.AddCommand(group(rules), group(cors), group(sticky))
	return group(cmd)
}

// required makes a command fail as a usage error when one of the flags is missing.
func required(cmd *cobra.Command, names ...string) {
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		for _, name := range names {
			if !cmd.Flags().Changed(name) {
				return UsageError(fmt.Errorf("--%s is missing", name))
			}
		}
		return nil
	}
}

// ingress reads an app's ingress.
func (c *Client) ingress(ctx context.Context, s *scope, app string) (rules []ruleView, cors *corsView, err error) {
	doc, err := c.get(ctx, s.path("containerApps", app), version())
	if err != nil {
		return nil, nil, err
	}
	v, err := decode[ingressView](doc)
	if err != nil {
		return nil, nil, err
	}
	in := v.Properties.Configuration.Ingress
	if in == nil {
		return nil, nil, fmt.Errorf("app %s has no ingress", app)
	}
	return in.Rules, in.CORS, nil
}

// setIngress changes one field of an app's ingress.
func (c *Client) setIngress(ctx context.Context, s *scope, app, field string, value any) error {
	return c.patch(ctx, s.path("containerApps", app), map[string]any{"configuration": map[string]any{"ingress": map[string]any{field: value}}})
}

func newRuleSetCmd(env *Env, s *scope) *cobra.Command {
	var rule ruleView
	cmd := &cobra.Command{
		Use:   "set APP",
		Short: "Add or replace a rule; the rules of an app must all allow or all deny",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			rules, _, err := c.ingress(cmd.Context(), s, args[0])
			if err != nil {
				return err
			}
			rules = append(slices.DeleteFunc(rules, func(r ruleView) bool { return r.Name == rule.Name }), rule)
			if err := c.setIngress(cmd.Context(), s, args[0], "ipSecurityRestrictions", rules); err != nil {
				return err
			}
			return env.show(rules, func(w io.Writer) { ruleTable(w, rules) })
		},
	}
	cmd.Flags().StringVar(&rule.Name, "rule-name", "", "name of the rule")
	cmd.Flags().StringVar(&rule.Range, "ip-address", "", "IPv4 range, such as 192.0.2.0/24")
	cmd.Flags().StringVar(&rule.Action, "action", "", "Allow (and deny all other addresses) or Deny")
	cmd.Flags().StringVar(&rule.Description, "description", "", "what the rule is for")
	required(cmd, "rule-name", "ip-address", "action")
	return cmd
}

func newRuleListCmd(env *Env, s *scope) *cobra.Command {
	return &cobra.Command{
		Use:   "list APP",
		Short: "List the rules",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			rules, _, err := c.ingress(cmd.Context(), s, args[0])
			if err != nil {
				return err
			}
			return env.show(rules, func(w io.Writer) { ruleTable(w, rules) })
		},
	}
}

func ruleTable(w io.Writer, rules []ruleView) {
	var rows [][]string
	for _, r := range rules {
		rows = append(rows, []string{r.Name, r.Action, r.Range, r.Description})
	}
	table(w, "NAME ACTION ADDRESSES DESCRIPTION", rows)
}

func newRuleRemoveCmd(env *Env, s *scope) *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "remove APP",
		Short: "Remove a rule",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			rules, _, err := c.ingress(cmd.Context(), s, args[0])
			if err != nil {
				return err
			}
			left := slices.DeleteFunc(append([]ruleView{}, rules...), func(r ruleView) bool { return r.Name == name })
			if len(left) == len(rules) {
				return &APIError{Status: http.StatusNotFound, Message: fmt.Sprintf("app %s has no rule %q", args[0], name)}
			}
			if err := c.setIngress(cmd.Context(), s, args[0], "ipSecurityRestrictions", left); err != nil {
				return err
			}
			return env.show(left, func(w io.Writer) { ruleTable(w, left) })
		},
	}
	cmd.Flags().StringVar(&name, "rule-name", "", "name of the rule")
	required(cmd, "rule-name")
	return cmd
}

func newCORSEnableCmd(env *Env, s *scope) *cobra.Command {
	var cors corsView
	maxAge := -1
	cmd := &cobra.Command{
		Use:   "enable APP",
		Short: "Set the CORS policy, replacing the existing one",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			if cmd.Flags().Changed("max-age") {
				cors.MaxAge = &maxAge
			}
			// Fields that are not given are removed. A merge patch removes a field with null.
			policy := map[string]any{
				"allowedOrigins": cors.Origins, "allowedMethods": cors.Methods, "allowedHeaders": cors.Headers, "exposeHeaders": cors.Exposed,
				"maxAge": cors.MaxAge, "allowCredentials": cors.Credentials,
			}
			if err := c.setIngress(cmd.Context(), s, args[0], "corsPolicy", policy); err != nil {
				return err
			}
			return env.show(cors, func(w io.Writer) { cors.print(w) })
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&cors.Origins, "allowed-origins", nil, "origins, such as https://chat.example.com, or * for all")
	f.StringSliceVar(&cors.Methods, "allowed-methods", nil, "HTTP methods")
	f.StringSliceVar(&cors.Headers, "allowed-headers", nil, "request headers")
	f.StringSliceVar(&cors.Exposed, "expose-headers", nil, "response headers that a page may read")
	f.IntVar(&maxAge, "max-age", maxAge, "seconds that a browser may cache the preflight response")
	f.BoolVar(&cors.Credentials, "allow-credentials", false, "allow requests with cookies or HTTP authentication")
	required(cmd, "allowed-origins")
	return cmd
}

func (v *corsView) print(w io.Writer) {
	age := ""
	if v.MaxAge != nil {
		age = strconv.Itoa(*v.MaxAge) + "s"
	}
	table(w, "ORIGINS METHODS HEADERS EXPOSED MAX-AGE CREDENTIALS", [][]string{{
		strings.Join(v.Origins, ","), strings.Join(v.Methods, ","), strings.Join(v.Headers, ","), strings.Join(v.Exposed, ","), age, strconv.FormatBool(v.Credentials),
	}})
}

func newCORSDisableCmd(env *Env, s *scope) *cobra.Command {
	return &cobra.Command{
		Use:   "disable APP",
		Short: "Remove the CORS policy",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			if err := c.setIngress(cmd.Context(), s, args[0], "corsPolicy", nil); err != nil {
				return err
			}
			fmt.Fprintf(env.Stderr, "removed the CORS policy of app %s\n", args[0])
			return nil
		},
	}
}

func newCORSShowCmd(env *Env, s *scope) *cobra.Command {
	return &cobra.Command{
		Use:   "show APP",
		Short: "Show the CORS policy",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			_, cors, err := c.ingress(cmd.Context(), s, args[0])
			if err != nil {
				return err
			}
			if cors == nil {
				return &APIError{Status: http.StatusNotFound, Message: fmt.Sprintf("app %s has no CORS policy", args[0])}
			}
			return env.show(cors, func(w io.Writer) { cors.print(w) })
		},
	}
}

func newStickySetCmd(env *Env, s *scope) *cobra.Command {
	var affinity string
	cmd := &cobra.Command{
		Use:   "set APP",
		Short: "Turn sticky sessions on or off",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			if err := c.setIngress(cmd.Context(), s, args[0], "stickySessions", map[string]any{"affinity": affinity}); err != nil {
				return err
			}
			fmt.Fprintf(env.Stderr, "set session affinity of app %s to %s\n", args[0], affinity)
			return nil
		},
	}
	cmd.Flags().StringVar(&affinity, "affinity", "", "sticky (on) or none (off)")
	required(cmd, "affinity")
	return cmd
}
