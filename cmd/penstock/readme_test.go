package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// README.ko.md says what README.md says: the same headings, the same rows of tables, the same code except for comments, the same
// links, and the same `code` in sentences.
func TestDocumentedInBothLanguages(t *testing.T) {
	var parts [2]map[string][]string
	for i, name := range []string{"README.md", "README.ko.md"} {
		text, err := os.ReadFile("../../" + name)
		if err != nil {
			t.Fatal(err)
		}
		parts[i] = readmeParts(string(text))
	}
	for what, english := range parts[0] {
		if len(english) < 3 {
			t.Errorf("only %d %s found in README.md; is it read?", len(english), what)
		}
		if d := cmp.Diff(english, parts[1][what]); d != "" {
			t.Errorf("%s (-README.md +README.ko.md):\n%s", what, d)
		}
	}
}

// A text that lacks something is found.
func TestAnIncompleteReadmeIsFound(t *testing.T) {
	const whole = "# A\n\n[b](c.md) `d`\n\n| x | |\n| --- | --- |\n| e | f |\n\n```sh\ng   # comment\n```\n"
	for what, lacking := range map[string]string{
		"headings": strings.Replace(whole, "# A", "A", 1), "links": strings.Replace(whole, "c.md", "d.md", 1), "code": strings.Replace(whole, "`d`", "d", 1),
		"tables": strings.Replace(whole, "| e | f |\n", "", 1), "blocks": strings.Replace(whole, "\ng ", "\nh ", 1),
	} {
		if cmp.Equal(readmeParts(whole)[what], readmeParts(lacking)[what]) {
			t.Errorf("nothing is missed in %q", lacking)
		}
	}
	translated := strings.NewReplacer("A", "가", "comment", "설명", "[b]", "[나]", "| e | f |", "| 마 | 바 |").Replace(whole)
	if d := cmp.Diff(readmeParts(whole), readmeParts(translated)); d != "" {
		t.Errorf("a translation differs: %s", d)
	}
}

var (
	readmeLink    = regexp.MustCompile(`\]\(([^)]+)\)`)
	readmeCode    = regexp.MustCompile("`([^`]+)`")
	readmeComment = regexp.MustCompile(`\s+# .*`)
)

// readmeParts has what two translations of a text have in common. Links and code are sorted, since the order of words differs.
func readmeParts(text string) map[string][]string {
	parts := map[string][]string{}
	add := func(what, part string) { parts[what] = append(parts[what], part) }
	block, fence := "", false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		trimmed := strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(trimmed, "```") && fence:
			add("blocks", block)
			fence = false
		case strings.HasPrefix(trimmed, "```"):
			block, fence = trimmed+"\n", true
		case fence:
			block += readmeComment.ReplaceAllString(line, "") + "\n"
		case strings.HasPrefix(line, "#"):
			level, _, _ := strings.Cut(line, " ")
			add("headings", level)
		case strings.HasPrefix(trimmed, "|"):
			add("tables", strings.Repeat("|", strings.Count(trimmed, "|")))
			fallthrough
		default:
			for _, found := range readmeLink.FindAllStringSubmatch(line, -1) {
				if !strings.HasPrefix(found[1], "README") {
					add("links", found[1])
				}
			}
			for _, found := range readmeCode.FindAllStringSubmatch(line, -1) {
				add("code", found[1])
			}
		}
	}
	slices.Sort(parts["links"])
	slices.Sort(parts["code"])
	return parts
}
