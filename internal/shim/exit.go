package shim

import (
	"encoding/json"
	"os"
	"path/filepath"
	"time"
)

// exitFile is beside a container's pipes.
const exitFile = "exit.json"

// Exit is how a container's first process ended.
type Exit struct {
	PID  int
	Code int
	At   time.Time
}

// KeepExit leaves an exit for a platform that is not there to be told.
func KeepExit(dir string, e Exit) error {
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return replace(filepath.Join(dir, exitFile), b)
}

// ReadExit returns what KeepExit left; the error is fs.ErrNotExist when that is nothing.
func ReadExit(dir string) (Exit, error) {
	var e Exit
	b, err := os.ReadFile(filepath.Join(dir, exitFile))
	if err != nil {
		return e, err
	}
	return e, json.Unmarshal(b, &e)
}

// replace writes a file whole, so that a crash leaves the old one or the new one. It is not synced: the container ends
// with the machine.
func replace(path string, b []byte) error {
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
