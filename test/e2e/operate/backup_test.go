package operate_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"penstock/test/penstocktest"
)

// A backup with images, made under load, restored beside the server that it is of: the second one serves the same app
// from the same image, and the first goes on.
func TestBackup(t *testing.T) {
	m := penstocktest.Boot(t)
	m.Image(t, "hello")
	m.Apply(t, penstocktest.Hello("hello", 2))
	stop := m.Press(t, "hello")
	file := filepath.Join(t.TempDir(), "backup.tar")
	from := time.Now()
	m.Must(t, "backup", file, "--images")
	took := time.Since(from)
	answered, failed, _ := stop().Counts()
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the backup: %v, %v; want a file for its owner only", info.Mode(), err)
	}
	if answered == 0 || failed > 0 {
		t.Errorf("while it was made %d requests were answered and %d failed", answered, failed)
	}

	second := penstocktest.Boot(t)
	second.Must(t, "down")
	if err := os.RemoveAll(second.Data); err != nil {
		t.Fatal(err)
	}
	from = time.Now()
	second.Must(t, "restore", file, "--as-new")
	restored := time.Since(from)
	second.Status.HTTPPort = 0
	second.Must(t, "up")
	penstocktest.Until(t, time.Minute, "the restored app answers", func() bool {
		status, _ := second.Ask(t, http.MethodGet, "hello", "/", "")
		return status == http.StatusOK
	})
	t.Logf("backup of %d KiB in %s, %d requests meanwhile; restored in %s, the app answers after %s",
		info.Size()>>10, took.Round(time.Millisecond), answered, restored.Round(time.Millisecond), time.Since(from).Round(time.Millisecond))
	second.AllReady(t, map[string]int{"hello": 2})
	if second.Status.Instance == m.Status.Instance {
		t.Errorf("both servers are instance %s", m.Status.Instance)
	}
	if one, two := m.Must(t, "image", "list", "-o", "json"), second.Must(t, "image", "list", "-o", "json"); digests(t, one) != digests(t, two) {
		t.Errorf("images before %s, after %s", one, two)
	}
	if status, answer := m.Ask(t, http.MethodGet, "hello", "/", ""); status != http.StatusOK {
		t.Errorf("the first server answers %d %s", status, answer)
	}
	if _, err := os.Stat(filepath.Join(second.Data, "import")); err == nil {
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
