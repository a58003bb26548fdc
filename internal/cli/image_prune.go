package cli

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"penstock/internal/admin/wire"
)

func newImagePruneCmd(env *Env) *cobra.Command {
	var all, dryRun bool
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove images that are no longer needed",
		Long: `Remove images that lost their tag to a newer push, and images that were pulled from a registry and that no revision needs.
Images that a revision needs, active or not, are never removed. Images that were pushed and still have their tag are
removed only with --all.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			query := url.Values{"all": {strconv.FormatBool(all)}, "dryRun": {strconv.FormatBool(dryRun)}}
			_, doc, err := c.call(cmd.Context(), http.MethodPost, wire.PrunePath, query, nil)
			if err != nil {
				return err
			}
			pruned, err := decode[wire.Pruned](doc)
			if err != nil {
				return err
			}
			return env.show(doc, func(w io.Writer) {
				var rows [][]string
				for _, i := range pruned.Images {
					rows = append(rows, []string{i.Name, shortDigest(i.Digest), bytesText(i.Bytes), i.Why})
				}
				table(w, "NAME DIGEST SIZE WHY", rows)
				said := "freed"
				if dryRun {
					said = "would free"
				}
				fmt.Fprintf(w, "%s %s\n", said, bytesText(pruned.Bytes))
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "also remove pushed images that still have their tag, if no revision needs them")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only show what would be removed")
	return cmd
}
