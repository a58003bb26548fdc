package main

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocumentedCommandsExist reads the code of all documentation for lines that call penstock, and checks each against
// the tree of commands.
func TestDocumentedCommandsExist(t *testing.T) {
	found := 0
	err := filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := entry.Name(); entry.IsDir() && (name == "testdata" || name == "node_modules" || strings.HasPrefix(name, ".") && name != ".." && name != "../..") {
			return filepath.SkipDir
		}
		if filepath.Ext(path) != ".md" {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, command := range commands(string(text)) {
			found++
			if err := check(command); err != nil {
				t.Errorf("%s: %s: %v", path, command, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found < 100 {
		t.Errorf("only %d commands found; are the docs read?", found)
	}
}

// A command that the documentation has wrong is found.
func TestWrongCommandsAreFound(t *testing.T) {
	for command, want := range map[string]string{
		"penstock frobnicate":                        "unknown command",
		"penstock app frobnicate":                    "app has no command frobnicate",
		"penstock app ingress cors shew chat":        "cors has no command shew",
		"penstock app list --frobnicate":             "unknown flag: --frobnicate",
		"penstock app list --output":                 "flag needs an argument",
		"penstock app show chat again":               "accepts 1 arg(s), received 2",
		"penstock app logs chat --tail many":         "invalid argument",
		"penstock up -f app.yaml and something more": "accepts at most 1 arg(s), received 3",
	} {
		if err := check(command); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", command, err, want)
		}
	}
	for _, command := range []string{"penstock app list -o json", "penstock app show chat", "penstock --help"} {
		if err := check(command); err != nil {
			t.Errorf("%s: %v", command, err)
		}
	}
}

// check finds a line's command in the tree, parses its flags, and counts its arguments, without running it.
func check(line string) error {
	env, more := commandLine(func(string) string { return "" }, strings.NewReader(""), io.Discard, io.Discard)
	root := env.Root(more)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	cmd, rest, err := root.Find(strings.Fields(line)[1:])
	if err != nil {
		return err
	}
	cmd.InitDefaultHelpFlag()
	cmd.InitDefaultVersionFlag()
	switch err := cmd.ParseFlags(rest); {
	case err != nil:
		return err
	case cmd.Flags().Changed("help"):
		return nil
	case cmd.HasSubCommands() && cmd.Flags().NArg() > 0:
		return fmt.Errorf("%s has no command %s", cmd.Name(), cmd.Flags().Arg(0))
	case cmd.Flags().NArg() == 0: // a text names the command
		return nil
	default:
		return cmd.ValidateArgs(cmd.Flags().Args())
	}
}

// continued is the end of a line that goes on in the next.
var continued = regexp.MustCompile(`\\\n\s*`)

// commands are the calls of penstock in the code blocks of a Markdown text, and in `code` that begins with it.
func commands(text string) []string {
	var found []string
	block := false
	for line := range strings.Lines(continued.ReplaceAllString(text, " ")) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "```") {
			block = !block
			continue
		}
		pieces := strings.Split(line, "`")
		for i, piece := range pieces {
			if (block && len(pieces) == 1) || i%2 == 1 {
				piece, _, _ = strings.Cut(piece, "#")
				piece, _, _ = strings.Cut(piece, " -- ") // what follows is somebody else's command
				piece, _, _ = strings.Cut(piece, " > ")  // the shell's
				piece = strings.TrimPrefix(strings.TrimSpace(piece), "bin/")
				piece, _, _ = strings.Cut(piece, "     ") // what follows is the next column of a drawing
				if strings.HasPrefix(piece, "penstock ") && !strings.ContainsAny(piece, "$|<─◄") {
					found = append(found, piece)
				}
			}
		}
	}
	return found
}

// The table of what was measured in Azure names the test that holds each line to its word, with its folder.
func TestConformanceTable(t *testing.T) {
	page, err := os.ReadFile("../../docs/compatibility.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "## What was measured in Azure, as tests\n")
	table, _, _ = strings.Cut(table, "\n## ")
	named := regexp.MustCompile("`([a-z0-9/]+)` (Test[A-Za-z]+)").FindAllStringSubmatch(table, -1)
	if len(named) < 8 {
		t.Fatalf("got %d names of tests, want the table", len(named))
	}
	for _, found := range named {
		files, err := filepath.Glob("../../" + found[1] + "/*_test.go")
		if err != nil {
			t.Fatal(err)
		}
		there := false
		for _, name := range files {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			there = there || strings.Contains(string(text), "\nfunc "+found[2]+"(")
		}
		if !there {
			t.Errorf("the table names %s in %s, which does not exist", found[2], found[1])
		}
	}
}
