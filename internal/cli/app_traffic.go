package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// shareOfTraffic is an entry of an app's traffic, as the API has it.
type shareOfTraffic struct {
	RevisionName   string `json:"revisionName,omitempty"`
	LatestRevision bool   `json:"latestRevision,omitempty"`
	Weight         int    `json:"weight"`
	Label          string `json:"label,omitempty"`
}

func newTrafficCmd(env *Env, s *scope) *cobra.Command {
	cmd := &cobra.Command{Use: "traffic", Short: "Split an app's traffic between its revisions"}
	cmd.AddCommand(newTrafficShowCmd(env, s), newTrafficSetCmd(env, s))
	return group(cmd)
}

// traffic returns how an app's requests are routed.
func (v *changeView) traffic(app string) ([]shareOfTraffic, error) {
	if v.Properties.Configuration.Ingress == nil {
		return nil, fmt.Errorf("app %s has no ingress, so it has no traffic", app)
	}
	return v.Properties.Configuration.Ingress.Traffic, nil
}

// showTraffic prints how an app's requests are routed now.
func (e *Env) showTraffic(ctx context.Context, c *Client, s *scope, app string) error {
	v, err := c.appToChange(ctx, s, app)
	if err != nil {
		return err
	}
	shares, err := v.traffic(app)
	if err != nil {
		return err
	}
	return e.show(shares, func(w io.Writer) {
		var rows [][]string
		for _, t := range shares {
			name := t.RevisionName
			if t.LatestRevision {
				name = cmp.Or(v.Properties.LatestReadyRevisionName, "-") + " (latest)"
			}
			rows = append(rows, []string{name, strconv.Itoa(t.Weight) + "%", t.Label})
		}
		table(w, "REVISION WEIGHT LABEL", rows)
	})
}

func newTrafficShowCmd(env *Env, s *scope) *cobra.Command {
	return &cobra.Command{
		Use:   "show APP",
		Short: "Show which revisions get how much of an app's traffic",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			return env.showTraffic(cmd.Context(), c, s, args[0])
		},
	}
}

func newTrafficSetCmd(env *Env, s *scope) *cobra.Command {
	return &cobra.Command{
		Use:   "set APP REVISION=WEIGHT...",
		Short: "Set the weights of revisions; REVISION is a name, its suffix, a label, or latest",
		Long: `Set the weights of revisions, in percent; they add up to 100. REVISION is the name of a revision, its suffix, a label, or
latest for the newest revision that is ready. Revisions that are not named get nothing; their labels stay. The app needs
the Multiple mode: penstock revision set-mode APP multiple.`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			weights := map[string]int{}
			var order []string
			sum := 0
			for _, pair := range args[1:] {
				name, text, _ := strings.Cut(pair, "=")
				weight, err := strconv.Atoi(text)
				if _, twice := weights[name]; name == "" || err != nil || weight < 0 || weight > 100 || twice {
					return UsageError(fmt.Errorf("want REVISION=WEIGHT with a weight from 0 to 100 and each revision once, got %q", pair))
				}
				weights[name] = weight
				order = append(order, name)
				sum += weight
			}
			if sum != 100 {
				return UsageError(fmt.Errorf("want weights that add up to 100, got %d", sum))
			}
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			d, err := c.appToChange(cmd.Context(), s, args[0])
			if err != nil {
				return err
			}
			if !d.multiple() {
				return hint(fmt.Errorf("app %s is in Single mode, in which the latest ready revision gets all traffic", args[0]), "penstock revision set-mode %s multiple", args[0])
			}
			now, err := d.traffic(args[0])
			if err != nil {
				return err
			}
			_, revisions, err := c.revisions(cmd.Context(), s, args[0])
			if err != nil {
				return err
			}
			shares, err := withWeights(now, args[0], revisions, order, weights)
			if err != nil {
				return hint(err, "penstock revision list %s", args[0])
			}
			if err := c.setTraffic(cmd.Context(), s, args[0], shares); err != nil {
				return err
			}
			fmt.Fprintf(env.Stderr, "set the traffic of app %s\n", args[0])
			return env.showTraffic(cmd.Context(), c, s, args[0])
		},
	}
}

func (c *Client) setTraffic(ctx context.Context, s *scope, app string, shares []shareOfTraffic) error {
	return c.patchApp(ctx, s, app, map[string]any{"configuration": map[string]any{"ingress": map[string]any{"traffic": shares}}})
}

// withWeights returns the shares with new weights. order is the order in which they were given.
func withWeights(now []shareOfTraffic, app string, revisions []revisionView, order []string, weights map[string]int) ([]shareOfTraffic, error) {
	shares := make([]shareOfTraffic, 0, len(now)+len(order))
	for _, t := range now {
		if t.Label != "" { // without a label and a weight an entry means nothing
			t.Weight = 0
			shares = append(shares, t)
		}
	}
	for _, name := range order {
		share := shareOfTraffic{LatestRevision: strings.EqualFold(name, "latest")}
		if !share.LatestRevision {
			labelled := slices.IndexFunc(now, func(t shareOfTraffic) bool { return strings.EqualFold(t.Label, name) })
			switch found := slices.IndexFunc(revisions, func(r revisionView) bool { return r.Name == name || r.Name == app+"--"+name }); {
			case found >= 0:
				share.RevisionName = revisions[found].Name
			case labelled >= 0:
				share.RevisionName, share.LatestRevision = now[labelled].RevisionName, now[labelled].LatestRevision
			default:
				return nil, fmt.Errorf("revision or label %q of app %s: %w", name, app, errNotFound)
			}
		}
		at := slices.IndexFunc(shares, func(t shareOfTraffic) bool {
			return t.RevisionName == share.RevisionName && t.LatestRevision == share.LatestRevision
		})
		if at < 0 {
			at, shares = len(shares), append(shares, share)
		}
		shares[at].Weight += weights[name]
	}
	return shares, nil
}

func newRollbackCmd(env *Env, s *scope) *cobra.Command {
	return &cobra.Command{
		Use:   "rollback APP [REVISION]",
		Short: "Go back to an earlier revision: the one before the current one, or REVISION",
		Long: `Go back to an earlier revision. Without REVISION it is the newest one before the current one that has not failed.

In Single mode a new revision with the earlier one's template is made, and gets the traffic when it is ready. In Multiple
mode the earlier revision itself is activated and gets all traffic.`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			d, err := c.appToChange(cmd.Context(), s, args[0])
			if err != nil {
				return err
			}
			docs, revisions, err := c.revisions(cmd.Context(), s, args[0])
			if err != nil {
				return err
			}
			at, err := earlier(args, d, revisions)
			if err != nil {
				return hint(err, "penstock revision list %s", args[0])
			}
			to := revisions[at]
			if d.multiple() {
				return env.rollbackTraffic(cmd, c, s, args[0], to)
			}
			old, err := decode[struct {
				Properties struct {
					Template map[string]any `json:"template"`
				} `json:"properties"`
			}](docs[at])
			if err != nil {
				return err
			}
			return env.changeTemplate(cmd, c, s, args[0], d, mergePatch(d.Properties.Template, old.Properties.Template),
				fmt.Sprintf("app %s has the template of revision %s again", args[0], to.Name))
		},
	}
}

// earlier finds the revision to go back to.
func earlier(args []string, d *changeView, revisions []revisionView) (int, error) {
	if len(args) == 2 {
		at := slices.IndexFunc(revisions, func(r revisionView) bool { return r.Name == args[1] || r.Name == args[0]+"--"+args[1] })
		if at < 0 {
			return 0, fmt.Errorf("revision %q of app %s: %w", args[1], args[0], errNotFound)
		}
		return at, nil
	}
	current := slices.IndexFunc(revisions, func(r revisionView) bool { return r.Name == d.Properties.LatestRevisionName })
	if d.multiple() { // the one with the most traffic
		for i, r := range revisions {
			if r.Properties.TrafficWeight > 0 && (current < 0 || r.Properties.TrafficWeight > revisions[current].Properties.TrafficWeight) {
				current = i
			}
		}
	}
	// The server lists revisions in the order in which they were made.
	for i := current - 1; i >= 0; i-- {
		p := &revisions[i].Properties
		if p.ProvisioningState != "Failed" && !(p.Active && p.ProvisioningState == "Provisioning") {
			return i, nil
		}
	}
	return 0, fmt.Errorf("app %s has no earlier revision that has not failed", args[0])
}

// rollbackTraffic activates a revision, waits until it can serve, and moves all traffic to it.
func (e *Env) rollbackTraffic(cmd *cobra.Command, c *Client, s *scope, app string, to revisionView) error {
	ctx, cancel := context.WithTimeoutCause(cmd.Context(), revisionLimit, fmt.Errorf("revision %s was not ready within %s", to.Name, revisionLimit))
	defer cancel()
	if !to.Properties.Active {
		if err := c.act(ctx, s, app, to.Name, "activate"); err != nil {
			return err
		}
		fmt.Fprintf(e.Stderr, "activating revision %s\n", to.Name)
	}
	err := poll(ctx, func() (bool, error) {
		doc, err := c.get(ctx, s.path("containerApps", app, "revisions", to.Name), version())
		if err != nil {
			return false, err
		}
		r, err := decode[revisionView](doc)
		if err != nil {
			return false, err
		}
		switch p := r.Properties; {
		case p.ProvisioningState == "Failed" || strings.HasSuffix(p.RunningState, "Failed"):
			return false, errors.New(cmp.Or(p.ProvisioningError, "revision "+to.Name+" failed"))
		default:
			return p.Active && (strings.HasPrefix(p.RunningState, "Running") || p.RunningState == "ScaledToZero"), nil
		}
	})
	if err != nil {
		return hint(fmt.Errorf("traffic stays where it is: %w", err), "penstock app events %s", app)
	}
	v, err := c.appToChange(ctx, s, app)
	if err != nil {
		return err
	}
	now, err := v.traffic(app)
	if err != nil {
		return err
	}
	shares, err := withWeights(now, app, []revisionView{to}, []string{to.Name}, map[string]int{to.Name: 100})
	if err != nil {
		return err
	}
	if err := c.setTraffic(ctx, s, app, shares); err != nil {
		return err
	}
	fmt.Fprintf(e.Stderr, "revision %s gets all traffic of app %s\n", to.Name, app)
	return nil
}

// revisionLimit is how long to wait for a revision. It is longer than large models take to load.
const revisionLimit = 10 * time.Minute

func newSetModeCmd(env *Env, s *scope) *cobra.Command {
	return &cobra.Command{
		Use:   "set-mode APP MODE",
		Short: "Set whether an app has one active revision (single) or several (multiple)",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			mode := map[string]string{"single": "Single", "multiple": "Multiple"}[strings.ToLower(args[1])]
			if mode == "" {
				return UsageError(fmt.Errorf("MODE: want single or multiple, got %q", args[1]))
			}
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			if err := c.patchApp(cmd.Context(), s, args[0], map[string]any{"configuration": map[string]any{"activeRevisionsMode": mode}}); err != nil {
				return err
			}
			fmt.Fprintf(env.Stderr, "app %s is in %s mode\n", args[0], mode)
			return nil
		},
	}
}
