package cli

import (
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"penstock/internal/admin/wire"
)

func newImageInspectCmd(env *Env) *cobra.Command {
	return &cobra.Command{
		Use:   "inspect NAME",
		Short: "Show an image's layers, the models in it, and the memory that its replicas share",
		Long: `Show an image's layers, the models in them, and the replicas that run it.

Models are recognised by their headers: safetensors, GGUF, ONNX, and PyTorch's zip files, whose pickle is read but
never executed. NEEDS is the memory that a replica should have to serve the model: the weights plus 20 %.

RSS is all memory that a replica has mapped; PSS divides each page by the number of processes that map it. Replicas
that map the weights of the same layer share the pages: RSS counts them in every replica, PSS once in total.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			raw, err := c.get(cmd.Context(), imagePath(args[0]), nil)
			if err != nil {
				return err
			}
			image, err := decode[wire.ImageDetails](raw)
			if err != nil {
				return err
			}
			return env.show(raw, func(w io.Writer) { printImage(w, image, time.Now()) })
		},
	}
}

// imagePath returns the path of an image in the server's API.
func imagePath(name string) string {
	parts := strings.Split(name, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return wire.ImagesPath + "/" + strings.Join(parts, "/")
}

func printImage(w io.Writer, i *wire.ImageDetails, now time.Time) {
	fmt.Fprintf(w, "%s  %s  %s, %s of it shared with other images  %s old\n", i.Name, shortDigest(i.Digest), bytesText(i.Size), bytesText(i.Shared), age(i.Created, now))
	if i.Problem != "" {
		fmt.Fprintf(w, "problem: %s\n", i.Problem)
	}
	fmt.Fprintln(w)
	var rows [][]string
	for _, l := range i.Layers {
		rows = append(rows, []string{l.Name, shortDigest(l.Digest), bytesText(l.Size), strconv.Itoa(l.SharedWith)})
	}
	table(w, "LAYER DIGEST SIZE SHARED-WITH", rows)
	if len(i.Models) > 0 {
		fmt.Fprintln(w)
		rows = nil
		for _, m := range i.Models {
			parameters, bytes, needs := countText(m.Parameters), bytesText(m.Bytes), bytesText(m.Needs)
			if m.Problem != "" && m.Parameters == 0 {
				parameters, bytes, needs = "not known", "not known", "not known"
			}
			rows = append(rows, []string{m.Path, m.Format, strconv.Itoa(m.Files), parameters, m.Type, bytes, needs, m.Problem})
		}
		table(w, "MODEL FORMAT FILES PARAMETERS TYPE WEIGHTS NEEDS PROBLEM", rows)
	}
	if len(i.Replicas) > 0 {
		fmt.Fprintln(w)
		rows = nil
		var rss, pss uint64
		for _, r := range i.Replicas {
			rss, pss = rss+r.RSS, pss+r.PSS
			rows = append(rows, []string{r.Name, bytesText(int64(r.RSS)), bytesText(int64(r.PSS))})
		}
		if len(i.Replicas) > 1 {
			rows = append(rows, []string{"all " + strconv.Itoa(len(i.Replicas)), bytesText(int64(rss)), bytesText(int64(pss))})
		}
		table(w, "REPLICA RSS PSS", rows)
	}
}

// countText formats a number of parameters as in names of models: 13.0B, 110M.
func countText(n int64) string {
	switch {
	case n >= 999_500_000:
		return fmt.Sprintf("%.1fB", float64(n)/1e9)
	case n >= 999_500:
		return fmt.Sprintf("%.0fM", float64(n)/1e6)
	}
	return strconv.FormatInt(n, 10)
}
