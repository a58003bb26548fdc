package oci_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
)

// The registry passes the conformance suite of the OCI distribution specification. Digests other than SHA-256 are optional.
func TestDistributionConformance(t *testing.T) {
	tools, err := filepath.Abs("../../tools/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(t)
	suite := exec.CommandContext(t.Context(), "go", "tool", "-modfile="+tools, "conformance")
	suite.Env = append(suite.Environ(), "OCI_REGISTRY="+strings.TrimPrefix(s.URL, "http://"), "OCI_TLS=disabled", "OCI_VERSION=1.1",
		"OCI_DATA_SHA512=false", "OCI_RESULTS_DIR="+t.TempDir(), "OCI_LOG=error")
	said, err := suite.CombinedOutput()
	out := string(said)
	passed := strings.Count(out, ": Pass\n")
	t.Logf("%d steps passed", passed)
	// The steps that fail or are skipped, and the faults below them.
	for line := range strings.Lines(out) {
		if trimmed := strings.TrimSpace(line); strings.HasPrefix(trimmed, "- ") || strings.Contains(line, ": FAIL") || strings.Contains(line, ": Skip") || strings.Contains(line, ": Error") {
			t.Log(trimmed)
		}
	}
	if err != nil || passed < 300 {
		t.Errorf("%d steps passed, %v", passed, err)
	}
	if t.Failed() && passed == 0 {
		t.Log(out)
	}
}

// An index can have indexes of images in it, and no deeper ones. What a repository does not have is not readable there, and
// what belongs to an index is deleted with it.
func TestNestedIndexes(t *testing.T) {
	s := newServer(t)
	img := newImage(t, "amd64", "layer")
	s.push(t, "app:1", img)
	raw, err := img.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	indexOf := func(mediaType types.MediaType, child string) string {
		return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"size":%d,"digest":%q}]}`,
			types.OCIImageIndex, mediaType, len(child), digest.FromString(child))
	}
	push := func(status int, code, tag, doc string) {
		t.Helper()
		s.answer(t, status, code, http.MethodPut, "/v2/app/manifests/"+tag, doc, "Content-Type", string(types.OCIImageIndex))
	}
	inner := indexOf(types.OCIManifestSchema1, string(raw))
	outer := indexOf(types.OCIImageIndex, inner)
	push(201, "", digest.FromString(inner).String(), inner)
	push(201, "", "nested", outer)
	push(400, "MANIFEST_INVALID", "deep", indexOf(types.OCIImageIndex, outer))

	s.answer(t, 202, "", http.MethodDelete, "/v2/app/manifests/1", "")
	s.collect(t)
	all := []string{digestOf(t, img), digest.FromString(inner).String(), digest.FromString(outer).String()}
	for _, d := range all {
		s.answer(t, 200, "", http.MethodGet, "/v2/app/manifests/"+d, "")
		s.answer(t, 404, "MANIFEST_UNKNOWN", http.MethodGet, "/v2/other/manifests/"+d, "")
	}
	for _, d := range all[:2] {
		s.answer(t, 405, "UNSUPPORTED", http.MethodDelete, "/v2/app/manifests/"+d, "")
	}
	archive := saved(t, s, "app:nested")
	if list, err := s.images.List(t.Context()); err != nil || len(list) != 1 || len(list[0].Layers) != 1 || !strings.Contains(list[0].Problem, "index within an index") {
		t.Errorf("list: got %+v, %v, want one image with a layer that cannot be run", list, err)
	}
	if found, err := s.images.Verify(t.Context()); err != nil || len(found.Damage) > 0 {
		t.Errorf("verify: %+v, %v", found, err)
	}
	s.answer(t, 202, "", http.MethodDelete, "/v2/app/manifests/nested", "")
	for _, d := range all { // at once, before anything is collected
		s.answer(t, 404, "MANIFEST_UNKNOWN", http.MethodGet, "/v2/app/manifests/"+d, "")
	}
	s.collect(t)
	if s.has(t, digestOf(t, img)) {
		t.Error("the image is still in the store")
	}

	to := newServer(t)
	if _, err := to.registry.Load(t.Context(), bytes.NewReader(archive), ""); err != nil {
		t.Fatal(err)
	}
	to.answer(t, 200, "", http.MethodGet, "/v2/app/manifests/"+all[0], "")
}
