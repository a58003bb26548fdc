package ingress_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The page of what passes through names the tests that hold it to its word, and all of them exist.
func TestDocumentedTestsExist(t *testing.T) {
	page, err := os.ReadFile("../../docs/ingress.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	below, err := filepath.Glob("*/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, below...)
	var code strings.Builder
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		code.Write(text)
	}
	named := regexp.MustCompile(`\b(Test|Fuzz)[A-Z]\w+`).FindAllString(string(page), -1)
	if len(named) < 20 {
		t.Fatalf("got %d names of tests, want the list", len(named))
	}
	for _, name := range named {
		if !strings.Contains(code.String(), "\nfunc "+name+"(") {
			t.Errorf("docs/ingress.md names %s, which does not exist", name)
		}
	}
}
