package cli

import (
	"context"
	"fmt"
	"reflect"
	"strings"

	"github.com/spf13/cobra"
)

// changeView is the part of an app that a change of its template or traffic reads. The template is kept as the server sent
// it, so that a change of one field loses no other.
type changeView struct {
	Properties struct {
		LatestRevisionName      string `json:"latestRevisionName"`
		LatestReadyRevisionName string `json:"latestReadyRevisionName"`
		Configuration           struct {
			RevisionsMode string `json:"activeRevisionsMode"`
			Ingress       *struct {
				Traffic []shareOfTraffic `json:"traffic"`
			} `json:"ingress"`
		} `json:"configuration"`
		Template map[string]any `json:"template"`
	} `json:"properties"`
}

// containers returns the containers of the template. Changing one changes it in the template.
func (v *changeView) containers() (all []map[string]any) {
	list, _ := v.Properties.Template["containers"].([]any)
	for _, one := range list {
		if c, ok := one.(map[string]any); ok {
			all = append(all, c)
		}
	}
	return all
}

// container returns the container of the name, or the only one if the name is "".
func (v *changeView) container(app, name string) (map[string]any, error) {
	all := v.containers()
	var names []string
	for _, c := range all {
		if c["name"] == name || name == "" && len(all) == 1 {
			return c, nil
		}
		names = append(names, fmt.Sprint(c["name"]))
	}
	if name == "" {
		return nil, UsageError(fmt.Errorf("--container: app %s has several containers; want one of %s", app, strings.Join(names, ", ")))
	}
	return nil, fmt.Errorf("container %q of app %s: %w; it has %s", name, app, errNotFound, strings.Join(names, ", "))
}

// multiple reports whether the app can have several active revisions.
func (v *changeView) multiple() bool {
	return strings.EqualFold(v.Properties.Configuration.RevisionsMode, "Multiple")
}

// appToChange reads an app.
func (c *Client) appToChange(ctx context.Context, s *scope, app string) (*changeView, error) {
	doc, err := c.get(ctx, s.path("containerApps", app), version())
	if err != nil {
		return nil, err
	}
	return decode[changeView](doc)
}

// changeTemplate changes a part of an app's template, waits until the change is done, and says which revision came of it.
func (e *Env) changeTemplate(cmd *cobra.Command, c *Client, s *scope, app string, before *changeView, template map[string]any, did string) error {
	template["revisionSuffix"] = nil // the suffix of the last revision is taken
	if err := c.patchApp(cmd.Context(), s, app, map[string]any{"template": template}); err != nil {
		return err
	}
	after, err := c.appToChange(cmd.Context(), s, app)
	if err != nil {
		return err
	}
	fmt.Fprintln(e.Stderr, did)
	switch name := after.Properties.LatestRevisionName; {
	case name == before.Properties.LatestRevisionName:
		fmt.Fprintf(e.Stderr, "nothing changed: revision %s stays\n", name)
	case after.multiple():
		fmt.Fprintf(e.Stderr, "revision %s is ready; penstock app traffic show %s says what traffic it gets\n", name, app)
	default:
		fmt.Fprintf(e.Stderr, "revision %s is ready and gets all traffic\n", name)
	}
	return nil
}

// patchApp changes a part of an app's properties and waits until the change is done.
func (c *Client) patchApp(ctx context.Context, s *scope, app string, properties map[string]any) error {
	return hint(c.patch(ctx, s.path("containerApps", app), properties), "penstock app events %s", app)
}

// mergePatch returns the JSON merge patch (RFC 7386) that turns one object into another.
func mergePatch(from, to map[string]any) map[string]any {
	patch := map[string]any{}
	for key := range from {
		if _, kept := to[key]; !kept {
			patch[key] = nil
		}
	}
	for key, value := range to {
		before, had := from[key]
		inner, isObject := value.(map[string]any)
		outer, wasObject := before.(map[string]any)
		switch {
		case isObject && wasObject:
			if changes := mergePatch(outer, inner); len(changes) > 0 {
				patch[key] = changes
			}
		case !had || !reflect.DeepEqual(before, value):
			patch[key] = value
		}
	}
	return patch
}
