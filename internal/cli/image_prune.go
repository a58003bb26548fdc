package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"
)

type prunedView struct {
	Images []struct {
		Name   string `json:"name"`
		Digest string `json:"digest"`
		Why    string `json:"why"`
		Bytes  int64  `json:"bytes"`
	} `json:"images"`
	Bytes int64 `json:"bytes"`
}

func newImagePruneCmd(env *Env) *cobra.Command {
	var all, dryRun bool
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove the images that nothing needs",
		Long: `Remove what a tag meant before it was pushed again, and what was pulled from a registry and no revision needs. What a
revision needs, active or not, is never removed; nor is, without --all, what was pushed under a tag that it still has.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			query := url.Values{"all": {strconv.FormatBool(all)}, "dryRun": {strconv.FormatBool(dryRun)}}
			_, doc, err := c.call(cmd.Context(), http.MethodPost, imagesPath+"/prune", query, nil)
			if err != nil {
				return err
			}
			pruned, err := decode[prunedView](doc)
			if err != nil {
				return err
			}
			return env.show(json.RawMessage(doc), func(w io.Writer) {
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
	cmd.Flags().BoolVar(&all, "all", false, "also what was pushed under a tag that it still has, when no revision needs it")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "remove nothing, tell what would go")
	return cmd
}
