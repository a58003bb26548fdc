package azure_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"penstock/test/penstocktest"
)

// The Azure SDK for JavaScript drives a fresh server from the first environment to its deletion.
func TestJavaScriptSDK(t *testing.T) {
	penstocktest.Nightly(t, "installs packages of npm")
	target := start(t)
	folder := t.TempDir()
	if err := os.CopyFS(folder, os.DirFS("testdata/javascript")); err != nil {
		t.Fatal(err)
	}
	penstocktest.NPM(t, folder, "ci")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", "drive.mjs", target.Endpoint, strings.TrimSpace(target.Token), subscription)
	cmd.Dir, cmd.WaitDelay = folder, time.Second
	cmd.Env = append(os.Environ(), "NODE_EXTRA_CA_CERTS="+filepath.Join(target.folders[0], "pki", "ca.pem"))
	out, err := cmd.CombinedOutput()
	if want := "environment\napp\nrevisions\ntraffic\nsecrets\nread and written back\njob\ndeleted\n"; err != nil || string(out) != want {
		t.Errorf("got %v after these steps:\n%swant\n%s", err, out, want)
	}
}
