package pki

import (
	"fmt"
	"os"
)

// readSecret reads a file. It fails if anyone but the owner can read the file.
func readSecret(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%s: others may read this secret (mode %04o, want 0600); if nobody has, run: chmod 600 %s", path, mode, path)
	}
	return os.ReadFile(path)
}
