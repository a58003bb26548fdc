package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// runFlags returns the flags with which buildah can execute RUN on this machine. By default it uses crun, or else runc
// (containers.conf(5)). crun rejects machines that have the hierarchies of cgroup v1 and v2 ("cgroups in hybrid mode not
// supported"); runc accepts them. Without either, buildah can change the root folder only.
func runFlags() []string {
	if os.Getenv("BUILDAH_ISOLATION") != "" || os.Getenv("BUILDAH_RUNTIME") != "" {
		return nil // the user decided
	}
	_, noCrun := exec.LookPath("crun")
	_, noRunc := exec.LookPath("runc")
	switch {
	case noCrun != nil && noRunc != nil:
		return []string{"--isolation=chroot"}
	case noCrun == nil && hybrid():
		if noRunc != nil {
			return []string{"--isolation=chroot"}
		}
		return []string{"--runtime=runc"}
	}
	return nil
}

// TryRun makes buildah execute RUN with a statically linked program. It works in dir and leaves the builder's own store alone.
// how is a short description of the isolation.
func TryRun(ctx context.Context, dir, program string, args ...string) (how string, err error) {
	buildah, err := exec.LookPath("buildah")
	if err != nil {
		return "", err
	}
	from := filepath.Join(dir, "context")
	if err := os.Mkdir(from, 0o700); err != nil {
		return "", err
	}
	if err := copyFile(filepath.Join(from, "program"), program); err != nil {
		return "", err
	}
	dockerfile := fmt.Sprintf("FROM scratch\nCOPY program /program\nRUN %s\n", list(append([]string{"/program"}, args...)...))
	if err := os.WriteFile(filepath.Join(from, dockerfileName), []byte(dockerfile), 0o600); err != nil {
		return "", err
	}
	flags := runFlags()
	all := append([]string{"--storage-driver=vfs", "--root=" + filepath.Join(dir, "root"), "--runroot=" + filepath.Join(dir, "run"),
		"build", "--layers=false", "--force-rm", "--network=host"}, append(flags, from)...)
	how = "its default isolation"
	if len(flags) > 0 {
		how = flags[0]
	}
	return how, (&dockerBuild{}).run(ctx, buildah, nil, all...)
}

func copyFile(to, from string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o700)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
