package penstocktest

import (
	"os/exec"
	"testing"
	"time"
)

// NPM runs npm install or npm ci in a folder. No script of a package is run. npm's own cache serves what it has fetched before.
func NPM(t *testing.T, folder string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "npm", append(args, "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline", "--prefix", folder)...)
	cmd.Dir, cmd.WaitDelay = folder, time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("npm: %v\n%s", err, out)
	}
}
