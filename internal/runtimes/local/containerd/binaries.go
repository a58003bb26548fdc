package containerd

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"penstock/internal/atomicfile"
)

// keepBinary copies a program to dir/<hash>/<name> and returns that path. It never overwrites a file there, because a
// running shim continues to use the file that it was started from, and starts runc from the path that it was given.
func keepBinary(dir, source string) (string, error) {
	f, err := os.Open(source)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("read %s: %w", source, err)
	}
	target := filepath.Join(dir, hex.EncodeToString(h.Sum(nil))[:16], filepath.Base(source))
	if _, err := os.Stat(target); err == nil {
		return target, nil
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return "", err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	tmp, err := atomicfile.Create(target, 0o755)
	if err != nil {
		return "", err
	}
	if _, err := io.Copy(tmp, f); err != nil {
		return "", errors.Join(fmt.Errorf("copy %s: %w", source, err), tmp.Discard())
	}
	if err := tmp.Commit(); err != nil {
		return "", fmt.Errorf("copy %s: %w", source, err)
	}
	return target, nil
}
