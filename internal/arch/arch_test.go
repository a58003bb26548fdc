// Package arch holds the map of the code as a test: which package may import which.
package arch_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// may lists for each package what else of ours it imports. Imports point down: a package stands below those that
// import it. Only server knows everyone; the command line reaches a server over HTTP only.
var may = map[string][]string{
	// pure: no I/O, no clock of their own
	"resource": {},
	"weights":  {},
	// the seams
	"link":     {"resource"},
	"runtimes": {"resource"},
	// engines
	"store":                     {"resource"},
	"backup":                    {"store"},
	"logs":                      {"resource"},
	"access":                    {},
	"pki":                       {},
	"seal":                      {},
	"oci":                       {"oci/remote", "weights"},
	"oci/remote":                {},
	"oci/unpack":                {},
	"build":                     {},
	"network":                   {},
	"names":                     {"link"},
	"probe":                     {"resource"},
	"runtimes/local":            {"resource", "runtimes", "probe"},
	"runtimes/local/containerd": {"resource", "runtimes", "runtimes/local", "network", "oci", "oci/unpack", "shim", "supervisor/port", "weights"},
	"shim":                      {},
	"runtimes/fake":             {"resource", "runtimes", "runtimes/local"},
	"runtimes/runtimetest":      {"resource", "runtimes"},
	// loops
	"reconcile": {"resource", "link", "runtimes", "store"},
	// front doors
	"arm/terminal":     {},
	"arm/app":          {"resource"},
	"arm":              {"resource", "runtimes", "store", "logs", "access", "pki", "arm/app", "arm/terminal"},
	"ingress":          {"resource", "link", "access", "ingress/front", "ingress/http1", "ingress/upstream"},
	"ingress/buffer":   {},
	"ingress/front":    {"ingress/buffer", "ingress/http1"},
	"ingress/http1":    {},
	"ingress/upstream": {"ingress/buffer", "ingress/http1"},
	// wiring
	"server":          {"*"},
	"supervisor":      {"supervisor/port"},
	"supervisor/port": {},
	"doctor":          {"supervisor/port"},
	"bench":           {"resource", "runtimes/local", "runtimes/local/containerd", "network", "oci"},
	"bench/proxy":     {"resource", "link", "ingress", "load"},
	// clients
	"load": {},
	"cli":  {"arm/app", "arm/terminal", "backup", "build", "doctor", "bench", "bench/proxy", "load", "resource"},
}

// pure packages may not reach the outside world at all.
var pure = map[string]bool{"resource": true, "weights": true}

var outside = []string{"os", "os/exec", "net", "net/http", "database/sql", "log", "log/slog", "syscall", "io/fs"}

func TestImportsFollowTheMap(t *testing.T) {
	const module = "penstock/internal/"
	seen := map[string]bool{}
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && entry.Name() == "testdata" {
			return filepath.SkipDir
		}
		if entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		pkg, err := filepath.Rel("..", filepath.Dir(path))
		if err != nil {
			return err
		}
		allowed, known := may[pkg]
		if !known {
			if !seen[pkg] {
				t.Errorf("package %s is not on the map; say in internal/arch what it may import", pkg)
			}
			seen[pkg] = true
			return nil
		}
		seen[pkg] = true
		for _, spec := range file.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if ours, ok := strings.CutPrefix(name, module); ok && !slices.Contains(allowed, ours) && !slices.Contains(allowed, "*") {
				t.Errorf("%s imports %s; the map has for it: %s", path, ours, strings.Join(allowed, ", "))
			}
			if pure[pkg] && slices.Contains(outside, name) {
				t.Errorf("%s is of a pure package and imports %s", path, name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for pkg := range maps.Keys(may) {
		if _, err := os.Stat(filepath.Join("..", pkg)); err != nil {
			t.Errorf("package %s is on the map and not in the tree", pkg)
		}
	}
}
