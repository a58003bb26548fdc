package doctor

import (
	"context"
	"errors"
	"io/fs"
	"os/exec"
	"path/filepath"
	"strings"

	"penstock/internal/build"
)

func shim(ctx context.Context, o Options) []Finding {
	return program(ctx, filepath.Join(o.Engines, "containerd-shim-runc-v2"), "-v")
}

func runc(ctx context.Context, o Options) []Finding {
	return program(ctx, filepath.Join(o.Engines, "runc"), "--version")
}

// program checks one of the engine's programs by asking for its version.
func program(ctx context.Context, path, question string) []Finding {
	const means = "containers cannot run"
	const mend = "build it with `make build`, or set its folder with --engines"
	out, err := exec.CommandContext(ctx, path, question).CombinedOutput()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fail(means, mend, "%s does not exist", path)
	case err != nil:
		return fail(means, mend, "%s: %v", path, err)
	}
	return ok("%s: %s", path, Version(string(out)))
}

// Version finds the version in a program's output: in the line that contains "version", or else in the first line.
func Version(answer string) string {
	first := ""
	for line := range strings.Lines(answer) {
		line = strings.TrimSpace(line)
		if first == "" {
			first = line
		}
		if rest, found := strings.CutPrefix(line, "Version:"); found {
			return strings.TrimSpace(rest)
		}
	}
	return first
}

// builder lists the programs that build Dockerfiles, and makes buildah execute a RUN instruction.
func builder(ctx context.Context, o Options) []Finding {
	var found []string
	for _, name := range []string{"buildctl", "buildkitd", "buildah"} {
		if path, err := exec.LookPath(name); err == nil {
			found = append(found, path)
		}
	}
	switch {
	case len(found) == 0:
		return ok("none; image.yaml needs none")
	case filepath.Base(found[len(found)-1]) != "buildah":
		return ok("%s", strings.Join(found, ", "))
	}
	dir, remove, err := scratch(o)
	if err != nil {
		return warn("RUN of Dockerfiles was not tried", "", "%v", err)
	}
	defer remove()
	ctx, cancel := context.WithTimeout(ctx, checkLimit*4/5)
	defer cancel()
	how, err := build.TryRun(ctx, dir, filepath.Join(o.Engines, "containerd-shim-runc-v2"), "-v")
	if err != nil {
		return warn("Dockerfiles with RUN may not build", "apt-get install runc, or set BUILDAH_ISOLATION=chroot", "RUN with %s: %v", how, err)
	}
	return ok("%s; RUN works with %s", strings.Join(found, ", "), how)
}
