// Package arch holds the map of the code as a test: which package may import which.
package arch_test

import (
	"go/ast"
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
	"scale":        {"resource"},
	"jobplan":      {"resource"},
	"leak":         {},
	"sim":          {"resource", "scale", "ingress/room"},
	"resource":     {},
	"weights":      {},
	"histogram":    {},
	"ingress/room": {"resource"},
	// the seams
	"link":     {"resource", "histogram"},
	"runtimes": {"resource"},
	// files
	"atomicfile": {},
	"diskspace":  {},
	"segment":    {},
	// engines
	"store":                     {"resource", "atomicfile"},
	"backup":                    {"store", "atomicfile"},
	"logs":                      {"resource", "segment"},
	"decisions":                 {"resource", "segment"},
	"accesslog":                 {"segment"},
	"pki":                       {"atomicfile"},
	"seal":                      {},
	"oci":                       {"oci/remote", "weights"},
	"oci/remote":                {"resource"},
	"oci/unpack":                {},
	"build":                     {"atomicfile", "weights"},
	"network":                   {"atomicfile"},
	"network/direct":            {},
	"network/networktest":       {},
	"oci/ocitest":               {"oci"},
	"appsecrets":                {"resource", "seal", "store"},
	"appimages":                 {"appsecrets", "oci", "oci/remote", "resource", "runtimes/local", "store"},
	"storages":                  {"resource", "runtimes/local", "store"},
	"memoryadvice":              {"oci", "resource", "weights"},
	"resolver":                  {"link"},
	"probe":                     {"resource", "network/direct"},
	"runtimes/local":            {"resource", "runtimes", "probe", "atomicfile"},
	"runtimes/local/containerd": {"resource", "runtimes", "runtimes/local", "network", "oci", "oci/unpack", "shim", "supervisor/port", "weights", "atomicfile"},
	"shim":                      {"atomicfile"},
	"runtimes/fake":             {"resource", "runtimes", "runtimes/local"},
	"runtimes/runtimetest":      {"resource", "runtimes"},
	// clients of other people's servers
	"autoscale/external":              {},
	"autoscale/external/externaltest": {},
	// loops
	"autoscale": {"atomicfile", "autoscale/external", "decisions", "link", "resource", "runtimes", "scale"},
	"recycle":   {"leak", "resource", "runtimes"},
	"reconcile": {"resource", "link", "jobplan", "runtimes", "store"},
	// front doors
	"arm/terminal":     {},
	"arm/app":          {"resource"},
	"arm":              {"resource", "runtimes", "store", "logs", "decisions", "accesslog", "pki", "arm/app", "arm/terminal"},
	"admin":            {"decisions", "leak", "scale", "admin/wire", "backup", "link", "oci", "oci/remote", "resource", "runtimes", "weights"},
	"admin/wire":       {},
	"ingress":          {"resource", "link", "accesslog", "ingress/front", "ingress/http1", "ingress/room", "ingress/upstream", "atomicfile"},
	"ingress/buffer":   {},
	"ingress/front":    {"ingress/buffer", "ingress/http1"},
	"ingress/http1":    {},
	"ingress/upstream": {"ingress/buffer", "ingress/http1", "network/direct"},
	// wiring
	"server":          {"*"},
	"supervisor":      {"supervisor/port", "network/direct", "atomicfile"},
	"supervisor/port": {},
	"doctor":          {"supervisor/port", "diskspace", "build"},
	"bench":           {"resource", "runtimes/local", "runtimes/local/containerd", "network", "oci"},
	"bench/proxy":     {"resource", "link", "ingress", "load"},
	"bench/rollout":   {"bench/scaling", "load"},
	"bench/scaling":   {"admin/wire", "ingress/room", "load", "resource", "scale", "sim"},
	// clients
	"load": {"histogram"},
	"cli":  {"admin/wire", "arm/app", "arm/terminal", "backup", "build", "doctor", "bench", "bench/proxy", "bench/rollout", "bench/scaling", "load", "resource", "atomicfile"},
}

// pure packages may not reach the outside world at all.
var pure = map[string]bool{"resource": true, "weights": true, "sim": true, "scale": true, "jobplan": true, "histogram": true, "leak": true, "ingress/room": true}

// clock is what a pure package may not use of package time.
var clock = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTicker", "NewTimer"}

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
	for pkg := range pure {
		checkPure(t, filepath.Join("..", pkg))
	}
	for pkg := range maps.Keys(may) {
		if _, err := os.Stat(filepath.Join("..", pkg)); err != nil {
			t.Errorf("package %s is on the map and not in the tree", pkg)
		}
	}
}

// checkPure reports what a pure package does beyond deciding: reading the clock and starting goroutines.
func checkPure(t *testing.T, dir string) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	files := token.NewFileSet()
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(files, path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s: a pure package starts a goroutine", files.Position(n.Pos()))
			case *ast.SelectorExpr:
				if pkg, ok := n.X.(*ast.Ident); ok && pkg.Name == "time" && slices.Contains(clock, n.Sel.Name) {
					t.Errorf("%s: a pure package uses time.%s", files.Position(n.Pos()), n.Sel.Name)
				}
			}
			return true
		})
	}
}
