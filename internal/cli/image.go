package cli

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"penstock/internal/admin/wire"
)

func newImageCmd(env *Env) *cobra.Command {
	cmd := &cobra.Command{Use: "image", Short: "Manage images on the server"}
	cmd.AddCommand(newImageListCmd(env), newImageInspectCmd(env), newImagePullCmd(env), newImagePruneCmd(env),
		newImageSaveCmd(env), newImageLoadCmd(env), newImageVerifyCmd(env), newImageDeleteCmd(env))
	return group(cmd)
}

func newImageListCmd(env *Env) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List images, their sizes, and what they share",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			docs, err := c.list(cmd.Context(), wire.ImagesPath)
			if err != nil {
				return err
			}
			images, err := decodeAll[wire.Image](docs)
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

// shortDigest returns the start of a digest, enough to tell digests apart.
func shortDigest(d string) string {
	_, hex, _ := strings.Cut(d, ":")
	return hex[:min(12, len(hex))]
}

func newImageDeleteCmd(env *Env) *cobra.Command {
	return &cobra.Command{
		Use:   "delete NAME",
		Short: "Delete an image; layers that other images use stay",
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
