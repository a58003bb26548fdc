package containerd

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// keepBinary copies a program to dir/<hash>/<name> and returns that path. A shim that runs goes on running the file
// that it was started from, and starts runc from the path that it was told, so what is there is never overwritten.
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
	tmp, err := os.CreateTemp(filepath.Dir(target), ".new-*")
	if err != nil {
		return "", err
	}
	_, err = io.Copy(tmp, f)
	err = errors.Join(err, tmp.Chmod(0o755), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), target)
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("copy %s: %w", source, err), os.Remove(tmp.Name()))
	}
	return target, nil
}
