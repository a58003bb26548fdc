package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"penstock/internal/build"
)

// benchHost is a server with real containers, and the program that a benchmark runs in them.
type benchHost struct {
	program       string
	port          int
	engines, data string
}

// read reads the settings, and the argument that names the program.
func (o *benchHost) read(cmd *cobra.Command, env *Env, program string) error {
	s, err := env.settings(cmd)
	if err != nil {
		return err
	}
	o.engines, o.data = s.Engines, s.Data
	o.program, err = filepath.Abs(program)
	return err
}

// ownServer starts a server in a temporary folder, on ports of its own.
func (o *benchHost) ownServer(ctx context.Context, env *Env) (stop func() error, err error) {
	dir, err := os.MkdirTemp("", "penstock-bench-")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // containers' users walk through it
		return nil, err
	}
	o.data = filepath.Join(dir, "data")
	run := func(ctx context.Context, command string) error {
		cmd := exec.CommandContext(ctx, env.Exe, command)
		cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "PENSTOCK_") })
		cmd.Env = append(cmd.Env, "PENSTOCK_DATA="+o.data, "PENSTOCK_ENGINES="+o.engines,
			"PENSTOCK_HTTP=127.0.0.1:0", "PENSTOCK_HTTPS=127.0.0.1:0", "PENSTOCK_ARM=127.0.0.1:0")
		cmd.Stderr = env.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("penstock %s: %w", command, err)
		}
		return nil
	}
	stop = func() error {
		if err := run(context.WithoutCancel(ctx), "down"); err != nil {
			return err // and keep the folder with its log
		}
		return os.RemoveAll(dir)
	}
	if err := run(ctx, "up"); err != nil {
		return nil, errors.Join(err, stop())
	}
	return stop, nil
}

// image builds an image of the program on the server.
func (o *benchHost) image(ctx context.Context, c *Client, name string) error {
	dir, err := os.MkdirTemp("", "penstock-bench-image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	program, err := os.ReadFile(o.program)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "program"), program, 0o755); err != nil {
		return err
	}
	file := fmt.Sprintf("layers: [{name: program, from: program, to: /program}]\nentrypoint: [/program]\nports: [%d]\n", o.port)
	if err := os.WriteFile(filepath.Join(dir, "image.yaml"), []byte(file), 0o644); err != nil {
		return err
	}
	_, err = build.Build(ctx, build.Options{Dir: dir, Name: name, Registry: build.Registry{URL: c.endpoint.String(), Transport: c}})
	return err
}
