package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

type imageDetailView struct {
	imageView
	Models []struct {
		Path       string `json:"path"`
		Format     string `json:"format"`
		Files      int    `json:"files"`
		Parameters int64  `json:"parameters"`
		Type       string `json:"type"`
		Bytes      int64  `json:"bytes"`
		Needs      int64  `json:"needs"`
		Problem    string `json:"problem"`
	} `json:"models"`
	Replicas []struct {
		Name string `json:"name"`
		RSS  int64  `json:"rssBytes"`
		PSS  int64  `json:"pssBytes"`
	} `json:"replicas"`
}

func newImageInspectCmd(env *Env) *cobra.Command {
	return &cobra.Command{
		Use:   "inspect NAME",
		Short: "Show an image: layers, models in it, and what its replicas share in memory",
		Long: `Show an image: its layers, the models in them and the replicas that run it.

Models are recognised by their headers: safetensors, GGUF, ONNX, and PyTorch's zip files, whose pickle is read and
never run. NEEDS is the memory that a replica should have to serve the model: its weights and a fifth more.

RSS is all memory that a replica has mapped; PSS divides each page by the number of processes that map it. Replicas
that map the same layer's weights share the pages: their RSS counts them each time, their PSS once in all.`,
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
			var image imageDetailView
			if err := json.Unmarshal(raw, &image); err != nil {
				return fmt.Errorf("read answer: %w", err)
			}
			return env.show(raw, func(w io.Writer) { image.print(w, time.Now()) })
		},
	}
}

// imagePath is where the server has an image of that name.
func imagePath(name string) string {
	parts := strings.Split(name, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return imagesPath + "/" + strings.Join(parts, "/")
}

func (i *imageDetailView) print(w io.Writer, now time.Time) {
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
			rows = append(rows, []string{m.Path, m.Format, strconv.Itoa(m.Files), countText(m.Parameters), m.Type, bytesText(m.Bytes), bytesText(m.Needs), m.Problem})
		}
		table(w, "MODEL FORMAT FILES PARAMETERS TYPE WEIGHTS NEEDS PROBLEM", rows)
	}
	if len(i.Replicas) > 0 {
		fmt.Fprintln(w)
		rows = nil
		var rss, pss int64
		for _, r := range i.Replicas {
			rss, pss = rss+r.RSS, pss+r.PSS
			rows = append(rows, []string{r.Name, bytesText(r.RSS), bytesText(r.PSS)})
		}
		if len(i.Replicas) > 1 {
			rows = append(rows, []string{"all " + strconv.Itoa(len(i.Replicas)), bytesText(rss), bytesText(pss)})
		}
		table(w, "REPLICA RSS PSS", rows)
	}
}

// countText is a number of parameters as models are named by: 13.0B, 110M.
func countText(n int64) string {
	switch {
	case n >= 999_500_000:
		return fmt.Sprintf("%.1fB", float64(n)/1e9)
	case n >= 999_500:
		return fmt.Sprintf("%.0fM", float64(n)/1e6)
	}
	return strconv.FormatInt(n, 10)
}
