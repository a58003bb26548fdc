package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

const layoutPath = "/penstock/v1/layout"

func newImageSaveCmd(env *Env) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "save [NAME...]",
		Short: "Write images to a tar file, as an OCI image layout; all of them without a name",
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if file == "" && isTerminal(env.Stdout) {
				return UsageError(errors.New("want a file to write to (--file), not a terminal"))
			}
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			resp, err := c.do(cmd.Context(), http.MethodGet, layoutPath, url.Values{"name": args}, nil)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if file == "" {
				_, err := io.Copy(env.Stdout, resp.Body)
				return err
			}
			// FILE stays as it was unless all has come.
			tmp, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-*")
			if err != nil {
				return err
			}
			defer os.Remove(tmp.Name())
			n, err := io.Copy(tmp, resp.Body)
			if err = errors.Join(err, tmp.Close()); err != nil {
				return hint(err, "look at the server's log")
			}
			if err := os.Rename(tmp.Name(), file); err != nil {
				return err
			}
			fmt.Fprintf(env.Stderr, "wrote %s to %s\n", bytesText(n), file)
			return nil
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "where to write; without it to standard output")
	return cmd
}

func newImageLoadCmd(env *Env) *cobra.Command {
	var file, tag string
	cmd := &cobra.Command{
		Use:   "load",
		Short: "Take images from a tar file that is an OCI image layout, as image save and docker save write it",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			in := env.Stdin
			if file != "" {
				f, err := os.Open(file)
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			}
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			query := url.Values{}
			if tag != "" {
				query.Set("name", tag)
			}
			resp, err := c.send(cmd.Context(), http.MethodPost, layoutPath, query, in, "application/x-tar")
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
			if err != nil {
				return fmt.Errorf("read answer: %w", err)
			}
			loaded, err := decode[struct{ Images []string }](raw)
			if err != nil {
				return err
			}
			return env.show(json.RawMessage(raw), func(w io.Writer) {
				for _, name := range loaded.Images {
					fmt.Fprintln(w, name)
				}
			})
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "where to read; without it from standard input")
	cmd.Flags().StringVarP(&tag, "tag", "t", "", "name of the image, when there is one in the file")
	return cmd
}

type verifiedView struct {
	Blobs  int   `json:"blobs"`
	Bytes  int64 `json:"bytes"`
	Damage []struct {
		Digest string   `json:"digest"`
		Fault  string   `json:"fault"`
		Images []string `json:"images"`
	} `json:"damage"`
	Repaired []string          `json:"repaired"`
	Left     map[string]string `json:"left"`
}

func newImageVerifyCmd(env *Env) *cobra.Command {
	var repair bool
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Read every layer and manifest again and compare it with its digest",
		Long: `Read every layer and manifest again and compare it with its digest, as after a crash of the machine or its disk. With
--repair what is damaged is dropped, and pulled again where it came from a registry; what was pushed must be pushed again,
which then sends the damaged layers only. Exit code 1 says that something is damaged still.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			query := url.Values{}
			if repair {
				query.Set("repair", "true")
			}
			resp, err := c.do(cmd.Context(), http.MethodPost, imagesPath+"/verify", query, nil)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
			if err != nil {
				return fmt.Errorf("read answer: %w", err)
			}
			found, err := decode[verifiedView](raw)
			if err != nil {
				return err
			}
			err = env.show(json.RawMessage(raw), func(w io.Writer) {
				fmt.Fprintf(w, "%d blobs, %s, %d damaged\n", found.Blobs, bytesText(found.Bytes), len(found.Damage))
				for _, d := range found.Damage {
					fmt.Fprintf(w, "%s of %s: %s\n", shortDigest(d.Digest), strings.Join(d.Images, ", "), d.Fault)
				}
				for _, name := range found.Repaired {
					fmt.Fprintf(w, "%s is whole again\n", name)
				}
				for name, what := range found.Left {
					fmt.Fprintf(w, "%s: %s\n", name, what)
				}
			})
			switch {
			case err != nil:
				return err
			case len(found.Damage) > 0 && !repair:
				return hint(fmt.Errorf("%d blobs are damaged", len(found.Damage)), "penstock image verify --repair")
			case len(found.Left) > 0:
				return errReported
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&repair, "repair", false, "drop what is damaged, and pull it again where it came from a registry")
	return cmd
}
