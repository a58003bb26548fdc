package penstocktest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

// root is the repository's folder: the nearest one above the test's that has a go.mod.
var root = sync.OnceValue(func() string {
	dir, err := os.Getwd()
	if err != nil {
		panic(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if parent := filepath.Dir(dir); parent != dir {
			dir = parent
			continue
		}
		panic("penstocktest: no folder above the test has a go.mod")
	}
})

// Path returns the absolute path of a file of the repository.
func Path(elem ...string) string {
	return filepath.Join(append([]string{root()}, elem...)...)
}

// raceDetector says whether the server under test is built with the race detector, as `make check-nightly` has it.
func raceDetector() bool { return os.Getenv("PENSTOCK_RACE") != "" }

// program builds penstock once for all tests, as `make build` does, and returns its path.
var program = sync.OnceValues(func() (string, error) {
	if raceDetector() {
		return Path("bin", "penstock.e2e"), goBuild(root(), "CGO_ENABLED=1", "build", "-race", "-o", "bin/penstock.e2e", "./cmd/penstock")
	}
	return Path("bin", "penstock.e2e"), goBuild(root(), "CGO_ENABLED=0", "build", "-ldflags", "-s -w", "-o", "bin/penstock.e2e", "./cmd/penstock")
})

// goBuild runs the go command in a folder. Test packages run at the same time and build the same programs: one builds,
// the others wait for it and find the file up to date, which go then leaves as it is.
func goBuild(dir, cgo string, args ...string) error {
	return locked(func() error { return goRun(dir, cgo, args...) })
}

// locked calls do while no other test process of this repository is in it.
func locked(do func() error) (err error) {
	if err := os.MkdirAll(Path("bin"), 0o755); err != nil {
		return err
	}
	lock, err := os.OpenFile(Path("bin", ".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }() // which unlocks it
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	return do()
}

// goRun runs the go command in a folder.
func goRun(dir, cgo string, args ...string) error {
	cmd := exec.Command("go", args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %v in %s: %w\n%s", args, dir, err, out)
	}
	return nil
}

// ImageOf builds the program in a folder of the repository, and an image NAME:1 that runs it. NAME is the folder's.
func (m *Machine) ImageOf(t *testing.T, folder ...string) {
	t.Helper()
	from := Path(folder...)
	name, dir := filepath.Base(from), t.TempDir()
	if err := goBuild(from, "CGO_ENABLED=0", "build", "-buildvcs=false", "-ldflags", "-s -w", "-o", filepath.Join(dir, name), "."); err != nil {
		t.Fatalf("build %s: %v", from, err)
	}
	image := fmt.Sprintf("layers:\n  - {name: program, from: %[1]s, to: /%[1]s}\nentrypoint: [/%[1]s]\nuser: \"65532\"\nports: [8080]\n", name)
	if err := os.WriteFile(filepath.Join(dir, "image.yaml"), []byte(image), 0o644); err != nil {
		t.Fatal(err)
	}
	m.Must(t, "build", "-t", name+":1", dir)
}

// Image builds an example's program and its image NAME:1. It also writes the weights of examples/chat, which are not in
// the repository.
func (m *Machine) Image(t *testing.T, name string) {
	t.Helper()
	dir := Path("examples", name)
	err := buildExample(dir, name)
	if _, missing := os.Stat(filepath.Join(dir, "weights", "model.safetensors")); err == nil && name == "chat" && missing != nil {
		err = goBuild(dir, "CGO_ENABLED=0", "run", "./weights", "-size", "64MiB", "-o", "weights/model.safetensors")
	}
	if err != nil {
		t.Fatalf("build examples/%s: %v", name, err)
	}
	m.Must(t, "build", "-t", name+":1", dir)
}

// buildExample builds bin/NAME in an example's folder. It leaves a file alone that is up to date, its time too, which go
// would set: other test packages may be making an image of it, and a file that changes meanwhile is refused.
func buildExample(dir, name string) error {
	return locked(func() error {
		made, fresh := filepath.Join(dir, "bin", name), filepath.Join(dir, "bin", "."+name)
		old, err := os.ReadFile(made)
		if err == nil {
			err = os.WriteFile(fresh, old, 0o755) // go links nothing if this is what it would write
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		defer os.Remove(fresh)
		if err := goRun(dir, "CGO_ENABLED=0", "build", "-buildvcs=false", "-ldflags", "-s -w", "-o", fresh, "."); err != nil {
			return err
		}
		if now, err := os.ReadFile(fresh); err != nil || bytes.Equal(now, old) {
			return err
		}
		return os.Rename(fresh, made)
	})
}
