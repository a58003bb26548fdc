package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"penstock/internal/admin/wire"
	"penstock/internal/atomicfile"
)

func newImageSaveCmd(env *Env) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "save [NAME...]",
		Short: "Save images to a tar file (OCI image layout); saves all images if no name is given",
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if file == "" && isTerminal(env.Stdout) {
				return UsageError(errors.New("want a file to write to (--file), not a terminal"))
			}
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			resp, err := c.do(cmd.Context(), http.MethodGet, wire.LayoutPath, url.Values{"name": args}, nil)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if file == "" {
				_, err := io.Copy(env.Stdout, resp.Body)
				return err
			}
			// FILE is replaced only when everything has arrived.
			tmp, err := atomicfile.Create(file, 0o600)
			if err != nil {
				return err
			}
			n, err := io.Copy(tmp, resp.Body)
			if err != nil {
				return hint(errors.Join(err, tmp.Discard()), "look at the server's log")
			}
			if err := tmp.Commit(); err != nil {
				return err
			}
			fmt.Fprintf(env.Stderr, "wrote %s to %s\n", bytesText(n), file)
			return nil
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "file to write (default: standard output)")
	return cmd
}

func newImageLoadCmd(env *Env) *cobra.Command {
	var file, tag string
	cmd := &cobra.Command{
		Use:   "load",
		Short: "Load images from a tar file (OCI image layout, as written by image save and docker save)",
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
			resp, err := c.send(cmd.Context(), http.MethodPost, wire.LayoutPath, query, in, "application/x-tar")
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
			if err != nil {
				return fmt.Errorf("read answer: %w", err)
			}
			loaded, err := decode[wire.Loaded](raw)
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
	cmd.Flags().StringVarP(&file, "file", "f", "", "file to read (default: standard input)")
	cmd.Flags().StringVarP(&tag, "tag", "t", "", "name for the image, if the file contains exactly one")
	return cmd
}

func newImageVerifyCmd(env *Env) *cobra.Command {
	var repair bool
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check every layer and manifest against its digest",
		Long: `Read every layer and manifest and compare it with its digest, for example after a crash of the machine or its disk. --repair
deletes damaged data and pulls it again if it came from a registry. Images that were pushed must be pushed again, which
sends only the damaged layers. The exit code is 1 if something is still damaged.`,
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
			resp, err := c.do(cmd.Context(), http.MethodPost, wire.VerifyPath, query, nil)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
			if err != nil {
				return fmt.Errorf("read answer: %w", err)
			}
			found, err := decode[wire.Verified](raw)
			if err != nil {
				return err
			}
			err = env.show(json.RawMessage(raw), func(w io.Writer) {
				fmt.Fprintf(w, "%d blobs, %s, %d damaged\n", found.Blobs, bytesText(found.Bytes), len(found.Damage))
				for _, d := range found.Damage {
					fmt.Fprintf(w, "%s of %s: %s\n", shortDigest(d.Digest), strings.Join(d.Images, ", "), d.Fault)
				}
				for _, name := range found.Repaired {
					fmt.Fprintf(w, "repaired %s\n", name)
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
	cmd.Flags().BoolVar(&repair, "repair", false, "delete damaged data, and pull it again if it came from a registry")
	return cmd
}
