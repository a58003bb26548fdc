package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"penstock/internal/build"
)

// manifestName is the manifest of the app in a folder.
const manifestName = "app.yaml"

func newInitCmd(env *Env) *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "init [DIR]",
		Short: "Write a manifest, and an image.yaml or a Dockerfile, for the program or model in a folder",
		Long: `Write what a folder lacks before penstock up can serve it: app.yaml, the manifest, and an image.yaml or a Dockerfile.
Existing files are kept as they are.

Recognised are, in this order: an image.yaml, a Dockerfile, a Python program with a requirements.txt, a Go program, a
Python program without one (its modules come from Debian), and a GGUF model, which llama.cpp serves. Without DIR it is
the current folder.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			folder := "."
			if len(args) == 1 {
				folder = args[0]
			}
			p, err := initFolder(cmd.Context(), env.Stderr, folder, name)
			if err != nil {
				return err
			}
			fmt.Fprintf(env.Stderr, "next: penstock up %s\n", folder)
			return env.show(p.wrote, func(w io.Writer) {
				for _, file := range p.wrote {
					fmt.Fprintln(w, file)
				}
			})
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "name of the app (default: made from the folder's name)")
	return cmd
}

// folderProgram is a folder that can be built and served.
type folderProgram struct {
	build.Program
	manifest string   // path of its manifest
	wrote    []string // paths of the files that were written
}

// initFolder finds out what is in a folder and writes the files that it lacks.
func initFolder(ctx context.Context, say io.Writer, folder, name string) (*folderProgram, error) {
	info, err := os.Stat(folder)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, hint(UsageError(fmt.Errorf("%s is a file; want a folder", folder)), "penstock up -f %s, if it is a manifest", folder)
	}
	found, err := build.Look(ctx, folder)
	if err != nil {
		return nil, err
	}
	p := &folderProgram{Program: found, manifest: filepath.Join(folder, manifestName), wrote: []string{}}
	files := found.Write
	_, err = os.Stat(p.manifest)
	switch {
	case err == nil && name != "":
		return nil, UsageError(fmt.Errorf("--name: %s already names the app", p.manifest))
	case errors.Is(err, fs.ErrNotExist):
		absolute, err := filepath.Abs(folder)
		if err != nil {
			return nil, err
		}
		if name, err = chooseName(name, absolute); err != nil {
			return nil, err
		}
		a := newApp{name: name, image: name + ":1", source: found.Kind, health: found.Health, needs: found.Needs()}
		if len(found.Ports) > 0 {
			a.port = found.Ports[0]
		}
		files = append(files, build.NewFile{Name: manifestName, Content: a.yaml()})
	case err != nil:
		return nil, err
	}
	fmt.Fprintf(say, "found %s in %s\n", found.Kind, folder)
	wrote, err := build.WriteNew(folder, files)
	for _, file := range wrote {
		p.wrote = append(p.wrote, filepath.Join(folder, file))
		fmt.Fprintf(say, "wrote %s\n", filepath.Join(folder, file))
	}
	return p, err
}
