package shim

import (
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"penstock/internal/atomicfile"
)

// exitFile is the name of the exit's file in the folder of a container's pipes.
const exitFile = "exit.json"

// Exit describes how a container's first process ended.
type Exit struct {
	PID  int
	Code int
	At   time.Time
}

// KeepExit writes an exit to a file, for a platform that is down. The file is not synced, because containers do not
// survive a crash of the machine anyway.
func KeepExit(dir string, e Exit) error {
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return atomicfile.WriteUnsynced(filepath.Join(dir, exitFile), b, 0o600)
}

// ReadExit returns the exit that KeepExit wrote. The error is fs.ErrNotExist if there is none.
func ReadExit(dir string) (Exit, error) {
	var e Exit
	b, err := os.ReadFile(filepath.Join(dir, exitFile))
	if err != nil {
		return e, err
	}
	return e, json.Unmarshal(b, &e)
}
