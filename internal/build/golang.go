package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
)

// errNoGo is the error if a layer has to be compiled and there is no Go.
var errNoGo = errors.New("compiling it needs the go command on PATH, found none: install Go, or compile the program yourself and leave the key go out")

// compile compiles the Go package of a layer into the file that the layer is made of. The program is static, so that it
// needs no base.
func compile(ctx context.Context, spec LayerSpec, opts Options) error {
	if spec.Go == "" {
		return nil
	}
	program, err := exec.LookPath("go")
	if err != nil {
		return errNoGo
	}
	dir, err := filepath.Abs(opts.Dir)
	if err != nil {
		return err
	}
	opts.report(Progress{Layer: fmt.Sprintf("compiling %s into %s", spec.Go, spec.From), Stage: StageTool})
	// The package is given as a path, so that a name is neither a flag nor a package of the standard library.
	cmd := exec.CommandContext(ctx, program, "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w",
		"-o", filepath.FromSlash(spec.From), "./"+path.Clean(filepath.ToSlash(spec.Go)))
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+runtime.GOARCH)
	var said limitedBuffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("go build: %w; it said last:\n%s", err, lastLines(said.String()))
	}
	return nil
}
