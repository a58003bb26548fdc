package cli

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"penstock/internal/admin/wire"
)

// completionLimit is how long a shell waits for names. Without an answer there are none.
const completionLimit = 2 * time.Second

// completeNames makes a shell's completion ask the server for the names that a command's arguments and flags stand for. Which
// ones these are follows from the usage line, as in "stop APP" or, below the noun app, "stop NAME".
func (e *Env) completeNames(root *cobra.Command) {
	for _, cmd := range root.Commands() {
		e.completeNamesOf(cmd, cmd.Name())
	}
}

func (e *Env) completeNamesOf(cmd *cobra.Command, noun string) {
	for _, sub := range cmd.Commands() {
		below := noun
		if sub.HasSubCommands() {
			below = noun + " " + sub.Name()
		}
		e.completeNamesOf(sub, below)
	}
	var kinds []string
	for _, word := range strings.Fields(cmd.Use)[1:] {
		word = strings.Trim(word, "[].")
		if word == "NAME" {
			word = strings.ToUpper(noun)
		}
		kinds = append(kinds, word)
	}
	if len(kinds) > 0 && listed[kinds[0]] != nil && cmd.ValidArgsFunction == nil {
		repeated := strings.Contains(cmd.Use, "...")
		cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, begin string) ([]string, cobra.ShellCompDirective) {
			at := len(args)
			if repeated {
				at = min(at, len(kinds)-1)
			}
			if at >= len(kinds) {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return e.names(cmd, kinds[at], args, begin)
		}
	}
	for _, flag := range []string{"revision", "replica", "execution", "environment", "env", "image"} {
		if cmd.LocalFlags().Lookup(flag) == nil {
			continue
		}
		kind := strings.ToUpper(flag)
		// The only error is that the flag is completed already, as a persistent one of a command above.
		_ = cmd.RegisterFlagCompletionFunc(flag, func(cmd *cobra.Command, args []string, begin string) ([]string, cobra.ShellCompDirective) {
			return e.names(cmd, kind, args, begin)
		})
	}
}

// listed has the path of the list for each kind of argument. args are the arguments before it.
var listed = map[string]func(s *scope, cmd *cobra.Command, args []string) string{
	"APP":         func(s *scope, _ *cobra.Command, _ []string) string { return s.path("containerApps") },
	"JOB":         func(s *scope, _ *cobra.Command, _ []string) string { return s.path("jobs") },
	"ENV":         func(s *scope, _ *cobra.Command, _ []string) string { return s.path("managedEnvironments") },
	"ENVIRONMENT": func(s *scope, _ *cobra.Command, _ []string) string { return s.path("managedEnvironments") },
	"IMAGE":       func(*scope, *cobra.Command, []string) string { return wire.ImagesPath },
	"REVISION": func(s *scope, _ *cobra.Command, args []string) string {
		return below(s, args, "containerApps", "revisions")
	},
	"EXECUTION": func(s *scope, _ *cobra.Command, args []string) string { return below(s, args, "jobs", "executions") },
	"STORAGE": func(s *scope, _ *cobra.Command, args []string) string {
		return below(s, args, "managedEnvironments", "storages")
	},
	"ENV CERTIFICATE": func(s *scope, cmd *cobra.Command, _ []string) string {
		return s.path("managedEnvironments", cmd.Flag("env").Value.String(), "certificates")
	},
}

// below returns the path of a list of the resource that the first argument names, or "" if there is none yet.
func below(s *scope, args []string, kind, list string) string {
	if len(args) == 0 {
		return ""
	}
	return s.path(kind, args[0], list)
}

// names returns the names of a kind that begin with begin. What goes wrong is not reported: it would be printed into the line
// that the user types.
func (e *Env) names(cmd *cobra.Command, kind string, args []string, begin string) ([]string, cobra.ShellCompDirective) {
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, completionLimit)
	defer cancel()
	c, err := e.client(cmd)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	s := &scope{subscription: defaultSubscription, group: defaultGroup}
	if f := cmd.Flag("subscription"); f != nil {
		s.subscription = f.Value.String()
	}
	if f := cmd.Flag("resource-group"); f != nil {
		s.group = f.Value.String()
	}
	var paths []string
	switch {
	case kind == "REPLICA":
		paths = replicaLists(ctx, c, s, cmd, args)
	case listed[kind] != nil:
		if path := listed[kind](s, cmd, args); path != "" {
			paths = []string{path}
		}
	}
	found := []string{}
	for _, path := range paths {
		docs, err := c.list(ctx, path)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		for _, doc := range docs {
			var v struct {
				Name string `json:"name"`
			}
			if json.Unmarshal(doc, &v) == nil && strings.HasPrefix(v.Name, begin) {
				found = append(found, v.Name)
			}
		}
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}

// replicaLists returns the paths of an app's lists of replicas, of the revision that was given or of all active ones.
func replicaLists(ctx context.Context, c *Client, s *scope, cmd *cobra.Command, args []string) (paths []string) {
	if len(args) == 0 {
		return nil
	}
	if f := cmd.Flag("revision"); f != nil && f.Value.String() != "" {
		return []string{s.path("containerApps", args[0], "revisions", f.Value.String(), "replicas")}
	}
	_, revisions, err := c.revisions(ctx, s, args[0])
	if err != nil {
		return nil
	}
	for _, r := range revisions {
		if r.Properties.Active {
			paths = append(paths, s.path("containerApps", args[0], "revisions", r.Name, "replicas"))
		}
	}
	return paths
}
