package arm_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "rewrite the wanted answers in testdata/answers")

// Each file holds a request (method, path and body) and the whole answer that it gets: its status and its JSON.
func TestAnswers(t *testing.T) {
	s := start(t)
	s.environment("e")
	files, err := filepath.Glob("testdata/answers/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			parts := map[string]string{}
			for _, f := range archive.Files {
				parts[f.Name] = string(f.Data)
			}
			method, path, _ := strings.Cut(strings.TrimSpace(parts["request"]), " ")
			a := s.do(method, path, parts["body"])
			var pretty bytes.Buffer
			if err := json.Indent(&pretty, a.body, "", "  "); err != nil {
				t.Fatalf("no JSON: %v\n%s", err, a.body)
			}
			got := fmt.Sprintf("%d\n%s\n", a.status, &pretty)
			if *update {
				for i := range archive.Files {
					if archive.Files[i].Name == "want" {
						archive.Files[i].Data = []byte(got)
					}
				}
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(parts["want"], got); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
		})
	}
}
