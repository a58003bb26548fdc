package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A backup with images, made under load, restored beside the server that it is of: the second one serves the same app
// from the same image, and the first goes on.
func TestBackup(t *testing.T) {
	m := bootMachine(t)
	m.image(t, "hello")
	m.apply(t, fmt.Sprintf(rebootManifest, "hello", 2, 2))
	stop := press(t, m, "hello")
	file := filepath.Join(t.TempDir(), "backup.tar")
	from := time.Now()
	m.must(t, "backup", file, "--images")
	took := time.Since(from)
	answered, failed, _ := stop().counts()
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the backup: %v, %v; want a file for its owner only", info.Mode(), err)
	}
	if answered == 0 || failed > 0 {
		t.Errorf("while it was made %d requests were answered and %d failed", answered, failed)
	}

	second := bootMachine(t)
	second.must(t, "down")
	if err := os.RemoveAll(second.data); err != nil {
		t.Fatal(err)
	}
	from = time.Now()
	second.must(t, "restore", file, "--as-new")
	restored := time.Since(from)
	second.status.HTTPPort = 0
	second.must(t, "up")
	until(t, time.Minute, "the restored app answers", func() bool {
		status, _ := second.ask(t, http.MethodGet, "hello", "/", "")
		return status == http.StatusOK
	})
	t.Logf("backup of %d KiB in %s, %d requests meanwhile; restored in %s, the app answers after %s",
		info.Size()>>10, took.Round(time.Millisecond), answered, restored.Round(time.Millisecond), time.Since(from).Round(time.Millisecond))
	allReady(t, second, map[string]int{"hello": 2})
	if second.status.Instance == m.status.Instance {
		t.Errorf("both servers are instance %s", m.status.Instance)
	}
	if one, two := m.must(t, "image", "list", "-o", "json"), second.must(t, "image", "list", "-o", "json"); digests(t, one) != digests(t, two) {
		t.Errorf("images before %s, after %s", one, two)
	}
	if status, answer := m.ask(t, http.MethodGet, "hello", "/", ""); status != http.StatusOK {
		t.Errorf("the first server answers %d %s", status, answer)
	}
	if _, err := os.Stat(filepath.Join(second.data, "import")); err == nil {
		t.Error("the folder that images came in is left")
	}
}

// digests are the names and digests of a list of images.
func digests(t *testing.T, list string) string {
	t.Helper()
	var images []struct{ Name, Digest string }
	if err := json.Unmarshal([]byte(list), &images); err != nil || len(images) == 0 {
		t.Errorf("images %s: %v", list, err)
	}
	return fmt.Sprint(images)
}
