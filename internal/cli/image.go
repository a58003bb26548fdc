package cli

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const imagesPath = "/penstock/v1/images"

type imageView struct {
	Name    string    `json:"name"`
	Digest  string    `json:"digest"`
	Created time.Time `json:"created"`
	Size    int64     `json:"size"`
	Unique  int64     `json:"unique"`
	Shared  int64     `json:"shared"`
	Layers  []struct {
		Name       string `json:"name"`
		Digest     string `json:"digest"`
		Size       int64  `json:"size"`
		SharedWith int    `json:"sharedWith"`
	} `json:"layers"`
	Problem string `json:"problem"`
}

func newImageCmd(env *Env) *cobra.Command {
	cmd := &cobra.Command{Use: "image", Short: "Images on the server"}
	cmd.AddCommand(newImageListCmd(env), newImageInspectCmd(env), newImagePullCmd(env), newImagePruneCmd(env),
		newImageSaveCmd(env), newImageLoadCmd(env), newImageVerifyCmd(env), newImageDeleteCmd(env))
	return group(cmd)
}

func newImageListCmd(env *Env) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the images, and what they share",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			docs, err := c.list(cmd.Context(), imagesPath)
			if err != nil {
				return err
			}
			images, err := decodeAll[imageView](docs)
			if err != nil {
				return err
			}
			return env.show(docs, func(w io.Writer) {
				var rows [][]string
				for _, i := range images {
					shared := 0
					for _, l := range i.Layers {
						if l.SharedWith > 0 {
							shared++
						}
					}
					rows = append(rows, []string{
						i.Name, shortDigest(i.Digest), bytesText(i.Size), bytesText(i.Unique),
						fmt.Sprintf("%s in %d", bytesText(i.Shared), shared), strconv.Itoa(len(i.Layers)), age(i.Created, time.Now()), i.Problem,
					})
				}
				table(w, "NAME DIGEST SIZE OWN SHARED LAYERS AGE PROBLEM", rows)
			})
		},
	}
}

// shortDigest is enough of a digest to tell two apart by eye.
func shortDigest(d string) string {
	_, hex, _ := strings.Cut(d, ":")
	return hex[:min(12, len(hex))]
}

func newImageDeleteCmd(env *Env) *cobra.Command {
	return &cobra.Command{
		Use:   "delete NAME",
		Short: "Delete an image; what other images share stays",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			if err := c.change(cmd.Context(), http.MethodDelete, imagePath(args[0]), nil); err != nil {
				return err
			}
			fmt.Fprintf(env.Stderr, "deleted image %s\n", args[0])
			return nil
		},
	}
}
