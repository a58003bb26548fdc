// Weights writes a weights file for the simulator: bytes that do not compress, the same for the same seed.
//
//	go run ./weights -size 64MiB -o weights/model.safetensors
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"penstock/examples/chat/internal/bytesize"
	"penstock/examples/chat/internal/weightfile"
)

func main() {
	err := run(os.Args[1:], os.Stderr)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "weights:", err)
		os.Exit(1)
	}
}

func run(args []string, stderr io.Writer) error {
	flags := flag.NewFlagSet("weights", flag.ContinueOnError)
	flags.SetOutput(stderr)
	size := flags.String("size", "64MiB", "`bytes` of the file, header included; KiB, MiB and GiB are understood")
	out := flags.String("o", "weights/model.safetensors", "`file` to write")
	name := flags.String("name", "simulated-llm", "`name` of the model, as clients ask for it")
	seed := flags.Uint64("seed", 1, "decides the bytes")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("want flags only, got %q", flags.Arg(0))
	}
	bytes, err := bytesize.Parse(*size)
	if err != nil {
		return fmt.Errorf("-size: %w", err)
	}
	header := weightfile.Header{Name: *name, Size: bytes}
	if err := header.Validate(); err != nil {
		return err
	}
	return replace(*out, func(w io.Writer) error { return weightfile.Write(w, header, *seed) })
}

// replace writes path whole or leaves it as it was: a server may have the old file mapped.
func replace(path string, write func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	w := bufio.NewWriterSize(f, 1<<20)
	err = errors.Join(write(w), w.Flush(), f.Chmod(0o644), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
