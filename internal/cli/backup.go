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

	"penstock/internal/admin/wire"
	"penstock/internal/atomicfile"
	"penstock/internal/backup"
)

func newBackupCmd(env *Env) *cobra.Command {
	var images bool
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Back up the server's data to a file while the server runs",
		Long: `Write apps, environments, secrets, certificates, token and addresses to a tar file, and with --images also the images.
Logs are not included. Protect the file like the data folder: it contains the keys.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			return writeBackup(cmd.Context(), env, c, args[0], images)
		},
	}
	cmd.Flags().BoolVar(&images, "images", false, "include all images")
	return cmd
}

// writeBackup replaces FILE only when the whole backup has arrived and is valid.
func writeBackup(ctx context.Context, env *Env, c *Client, file string, images bool) (err error) {
	resp, err := c.do(ctx, http.MethodGet, wire.BackupPath, url.Values{"images": {strconv.FormatBool(images)}}, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	tmp, err := atomicfile.Create(file, 0o600) // it holds keys
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tmp.Discard()) }()
	info, err := backup.Check(io.TeeReader(resp.Body, tmp))
	if err == nil {
		_, err = io.Copy(tmp, resp.Body) // the archive's padding
	}
	if err != nil {
		return hint(err, "look at the server's log")
	}
	size, err := tmp.Stat()
	if err != nil {
		return err
	}
	if err := tmp.Commit(); err != nil {
		return err
	}
	fmt.Fprintf(env.Stderr, "wrote %s of instance %s to %s\n", bytesText(size.Size()), info.Instance, file)
	return nil
}

func newRestoreCmd(env *Env) *cobra.Command {
	var asNew bool
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Restore a backup into an empty data folder",
		Long: `Restore a backup into the folder given by --data, which must be empty or not exist. This starts nothing: run "penstock up"
afterwards. If the backup has no images, apps are served once their images have been pushed.`,
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
				fmt.Fprintln(env.Stderr, "the backup has no images; push them once the server runs")
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asNew, "as-new", false, "use a new name and new addresses, so that it can run beside the original server")
	return cmd
}

// free returns an error if a server of that instance runs on this machine. Two of them would remove each other's
// containers as orphans.
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
		return nil // left behind by a server that was killed
	}
	return hint(fmt.Errorf("the original server of this backup (instance %s, pid %d) runs on this machine", instance, pid),
		"penstock restore --as-new\nor stop the original server with penstock down --data ITS_FOLDER")
}
