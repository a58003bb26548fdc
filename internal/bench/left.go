package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"penstock/internal/runtimes/local"
)

// answers waits for the first 200 response. Refused connections fail at once, so only the pause between tries adds to the
// measured time.
func answers(ctx context.Context, at netip.AddrPort) error {
	const pause = 500 * time.Microsecond
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at.String()+"/", nil)
		if err != nil {
			return err
		}
		res, err := client.Do(req)
		if err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
			err = errors.New(res.Status)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("%s has not answered: %w", at, err)
		}
	}
}

// left lists what the cycles left behind on the machine: processes, mounts, namespaces, cgroups, folders.
func (l *lab) left(ctx context.Context) ([]string, error) {
	// A shim ends by itself shortly after its container was deleted.
	deadline := time.Now().Add(5 * time.Second)
	for {
		found, err := l.inventory()
		if err != nil || len(found) == 0 || time.Now().After(deadline) {
			return found, err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (l *lab) inventory() ([]string, error) {
	var found []string
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	for _, path := range commands {
		if b, err := os.ReadFile(path); err == nil && strings.Contains(string(b), l.dir+"/") {
			found = append(found, "process "+strings.ReplaceAll(string(b), "\x00", " "))
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, l.dir+"/") && !strings.Contains(line, l.dir+"/s/m ") { // the driver is still open
			found = append(found, "mount "+strings.TrimSpace(line))
		}
	}
	for _, pattern := range []string{
		filepath.Join(l.dir, "root", "sandboxes", "*"), filepath.Join(l.dir, "s", "t", "*"), filepath.Join(l.dir, "s", "s", "*"),
		filepath.Join(l.dir, "s", "netns", "*"), filepath.Join(l.dir, "s", "runc", "*", "*"), filepath.Join(l.dir, "bareroot", "*"),
		filepath.Join("/sys/fs/cgroup", l.name, "*"), filepath.Join("/sys/fs/cgroup/*", l.name, "*", "cgroup.procs"),
	} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			if info, err := os.Stat(path); err == nil && (info.IsDir() || !strings.HasPrefix(path, "/sys/fs/cgroup/"+l.name)) {
				found = append(found, path)
			}
		}
	}
	for _, l := range l.network.Attached() {
		found = append(found, "network of "+l)
	}
	return found, nil
}

// removeCgroups removes the empty cgroup of the lab from every hierarchy.
func removeCgroups(name string) error {
	dirs, err := filepath.Glob(filepath.Join("/sys/fs/cgroup/*", name))
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range append(dirs, filepath.Join("/sys/fs/cgroup", name)) {
		if err := unix.Rmdir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove cgroup %s: %w", dir, err))
		}
	}
	return errors.Join(errs...)
}

// silent discards the output of containers.
type silent struct{}

func (silent) Open(local.Output) io.WriteCloser { return nothing{} }

type nothing struct{}

func (nothing) Write(b []byte) (int, error) { return len(b), nil }
func (nothing) Close() error                { return nil }
