package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"penstock/internal/backup"
)

func newBackupCmd(env *Env) *cobra.Command {
	var images bool
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Write all that the server keeps to a file, while it runs",
		Long: `Write apps, environments, secrets, certificates, token and addresses to a tar file, and with --images the images too.
Logs are left out. Keep the file as safe as the data folder: it has the keys.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			return writeBackup(cmd.Context(), env, c, args[0], images)
		},
	}
	cmd.Flags().BoolVar(&images, "images", false, "with all images")
	return cmd
}

// writeBackup leaves FILE as it was unless all has come and is in order.
func writeBackup(ctx context.Context, env *Env, c *Client, file string, images bool) (err error) {
	resp, err := c.do(ctx, http.MethodGet, "/penstock/v1/backup", url.Values{"images": {strconv.FormatBool(images)}}, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	tmp, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-*") // for its owner only, as it has keys
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	info, err := backup.Check(io.TeeReader(resp.Body, tmp))
	if err == nil {
		_, err = io.Copy(tmp, resp.Body) // the archive's padding
	}
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return hint(err, "look at the server's log")
	}
	size, err := os.Stat(tmp.Name())
	if err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), file); err != nil {
		return err
	}
	fmt.Fprintf(env.Stderr, "wrote %s of instance %s to %s\n", bytesText(size.Size()), info.Instance, file)
	return nil
}

func newRestoreCmd(env *Env) *cobra.Command {
	var asNew bool
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make a data folder from a backup; the next server on it serves the same apps",
		Long: `Make the folder that --data names from a backup. It must be empty or not be there. Nothing is started: "penstock up"
does that. A backup without images serves its apps once the images have been pushed.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := env.settings(cmd)
			if err != nil {
				return err
			}
			in := env.Stdin
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			}
			began := time.Now()
			to := backup.Target{Dir: s.Data, AsNew: asNew}
			if !asNew {
				to.Allow = func(i backup.Info) error { return free(s.Run, i.Instance) }
			}
			info, err := backup.Restore(cmd.Context(), in, to)
			if err != nil {
				return err
			}
			fmt.Fprintf(env.Stderr, "restored the backup of %s (Penstock %s) to %s in %s\n",
				info.Created.Local().Format(time.DateTime), info.Version, s.Data, time.Since(began).Round(time.Millisecond))
			if !info.Images {
				fmt.Fprintln(env.Stderr, "it has no images; push them when the server runs")
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asNew, "as-new", false, "give it a name and addresses of its own, to run beside the server that the backup is of")
	return cmd
}

// free says whether a server of that instance runs on this machine. Two would take each other's containers for strays.
func free(run, instance string) error {
	b, err := os.ReadFile(filepath.Join(run, filepath.Base(instance), "pid"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return nil // what a server left that was killed
	}
	return hint(fmt.Errorf("the server that the backup is of (instance %s, pid %d) runs on this machine", instance, pid),
		"penstock restore --as-new\nor stop that server with penstock down --data ITS_FOLDER")
}
