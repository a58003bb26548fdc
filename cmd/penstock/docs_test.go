package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocumentedCommandsExist reads every code block of the documentation for lines that call penstock, and asks for the
// help of each with its flags: a command or a flag that is not there is an error.
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
			var out, bad bytes.Buffer
			args := append(strings.Fields(command)[1:], "--help")
			if code := run(t.Context(), args, func(string) string { return "" }, strings.NewReader(""), &out, &bad); code != 0 {
				t.Errorf("%s: %s: exit %d: %s", path, command, code, bad.String())
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found < 10 {
		t.Errorf("only %d commands found; are the docs read?", found)
	}
}

// commands are the calls of penstock in the code blocks of a Markdown text, and in `code` that begins with it.
func commands(text string) []string {
	var found []string
	block := false
	for line := range strings.Lines(text) {
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
				piece = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(piece), "bin/"))
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
