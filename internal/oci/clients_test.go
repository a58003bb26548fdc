package oci_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/crane"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/opencontainers/go-digest"

	"penstock/internal/oci"
)

// crane, used as a library, works with this registry as with others.
func TestCrane(t *testing.T) {
	s := newServer(t)
	img := newImage(t, runtime.GOARCH, "weights", "code")
	host := strings.TrimPrefix(s.URL, "http://")
	from, to := host+"/team/app:1", host+"/other/app:2"
	if err := crane.Push(img, from); err != nil {
		t.Fatal(err)
	}
	if err := crane.Copy(from, to); err != nil {
		t.Fatal(err)
	}
	if d, err := crane.Digest(to); err != nil || d != digestOf(t, img) {
		t.Errorf("the copy: got %s, %v, want %s", d, err, digestOf(t, img))
	}
	if err := crane.Tag(to, "stable"); err != nil {
		t.Error(err)
	}
	if tags, err := crane.ListTags(host + "/other/app"); err != nil || !slices.Equal(tags, []string{"2", "stable"}) {
		t.Errorf("tags: got %v, %v", tags, err)
	}
	if repos, err := crane.Catalog(host); err != nil || !slices.Equal(repos, []string{"other/app", "team/app"}) {
		t.Errorf("catalog: got %v, %v", repos, err)
	}
	if got, err := crane.Pull(to); err != nil || validate.Image(got, validate.Fast) != nil {
		t.Errorf("pull: %v, %v", err, validate.Image(got, validate.Fast))
	}
	if err := crane.Delete(to); err != nil {
		t.Error(err)
	}
	if _, err := crane.Manifest(to); err == nil {
		t.Error("the deleted tag is there")
	}
	if _, err := crane.Manifest(host + "/other/app:stable"); err != nil {
		t.Errorf("the other tag went with it: %v", err)
	}
}

// skopeo copies to this registry and back, including an index with all its images.
func TestSkopeo(t *testing.T) {
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skip("skopeo is not installed")
	}
	s := newServer(t)
	host := strings.TrimPrefix(s.URL, "http://")
	dir := t.TempDir()
	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: newImage(t, "amd64", "shared", "amd"), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}},
		mutate.IndexAddendum{Add: newImage(t, "arm64", "shared", "arm"), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}}})
	path, err := layout.Write(filepath.Join(dir, "from"), empty.Index)
	if err == nil {
		err = path.AppendIndex(index, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "1"}))
	}
	if err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), skopeo, append([]string{"--insecure-policy", "--tmpdir", dir}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("skopeo %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	run("copy", "--all", "--dest-tls-verify=false", "oci:"+filepath.Join(dir, "from")+":1", "docker://"+host+"/team/app:1")
	run("copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false", "docker://"+host+"/team/app:1", "docker://"+host+"/other/app:2")
	run("copy", "--all", "--src-tls-verify=false", "docker://"+host+"/other/app:2", "oci:"+filepath.Join(dir, "back")+":1")
	// skopeo rewrites an index. It must bring back what it brought here.
	brought, err := remote.Head(s.ref(t, "team/app:1"))
	if err != nil {
		t.Fatal(err)
	}
	back, err := layout.ImageIndexFromPath(filepath.Join(dir, "back"))
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := back.IndexManifest()
	if err != nil || len(manifest.Manifests) != 1 || manifest.Manifests[0].Digest != brought.Digest {
		t.Errorf("what came back: %+v, %v, want %s", manifest, err, brought.Digest)
	}
	var tags struct{ Tags []string }
	if err := json.Unmarshal([]byte(run("list-tags", "--tls-verify=false", "docker://"+host+"/other/app")), &tags); err != nil || !slices.Equal(tags.Tags, []string{"2"}) {
		t.Errorf("tags: got %v, %v", tags, err)
	}
	run("delete", "--tls-verify=false", "docker://"+host+"/other/app:2")
	s.answer(t, http.StatusNotFound, "MANIFEST_UNKNOWN", http.MethodGet, "/v2/other/app/manifests/2", "")
	s.answer(t, http.StatusOK, "", http.MethodHead, "/v2/team/app/manifests/1", "")
}

func TestReferrers(t *testing.T) {
	s := newServer(t)
	s.stores.Freed = func() {}
	s.images = oci.NewImages(s.stores)
	s.open(t)
	img := newImage(t, runtime.GOARCH, "code")
	s.push(t, "team/app:1", img)
	subject, err := remote.Head(s.ref(t, "team/app:1"))
	if err != nil {
		t.Fatal(err)
	}
	attach := func(artifact, content string) v1.Image {
		t.Helper()
		a := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
		a = mutate.ConfigMediaType(a, types.MediaType(artifact))
		a = mutate.Annotations(a, map[string]string{"note": content}).(v1.Image)
		a, err := mutate.AppendLayers(a, static.NewLayer([]byte(content), types.MediaType(artifact+".blob")))
		if err != nil {
			t.Fatal(err)
		}
		a = mutate.Subject(a, *subject).(v1.Image)
		if err := remote.Write(s.ref(t, "team/app@"+digestOf(t, a)), a); err != nil {
			t.Fatal(err)
		}
		return a
	}
	signature, sbom := attach("application/vnd.example.signature", "signed"), attach("application/vnd.example.sbom", "parts")
	at, ok := s.ref(t, "team/app@"+digestOf(t, img)).(name.Digest)
	if !ok {
		t.Fatal("no reference by digest")
	}
	list := func(want ...v1.Image) {
		t.Helper()
		index, err := remote.Referrers(at)
		if err != nil {
			t.Fatal(err)
		}
		manifest, err := index.IndexManifest()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, m := range manifest.Manifests {
			got[m.Digest.String()] = m.ArtifactType + " " + m.Annotations["note"]
		}
		if len(got) != len(want) {
			t.Errorf("got %v, want %d", got, len(want))
		}
		for _, a := range want {
			m, err := a.Manifest()
			if err != nil {
				t.Fatal(err)
			}
			if shown := string(m.Config.MediaType) + " " + m.Annotations["note"]; got[digestOf(t, a)] != shown {
				t.Errorf("%s: got %q, want %q", digestOf(t, a), got[digestOf(t, a)], shown)
			}
		}
	}
	list(signature, sbom)
	path := "/v2/team/app/referrers/" + digestOf(t, img)
	resp, body := s.do(t, http.MethodGet, path+"?artifactType=application/vnd.example.sbom", "")
	if resp.Header.Get("OCI-Filters-Applied") != "artifactType" || !strings.Contains(body, digestOf(t, sbom)) || strings.Contains(body, digestOf(t, signature)) {
		t.Errorf("one type only: %v %s", resp.Header, body)
	}
	if resp, body := s.do(t, http.MethodGet, "/v2/other/referrers/"+digestOf(t, img), ""); resp.StatusCode != http.StatusOK || !strings.Contains(body, `"manifests":[]`) {
		t.Errorf("another repository: %d %s", resp.StatusCode, body)
	}
	raw, err := signature.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	resp = s.answer(t, http.StatusCreated, "", http.MethodPut, "/v2/team/app/manifests/"+digestOf(t, signature), string(raw))
	if got := resp.Header.Get("OCI-Subject"); got != digestOf(t, img) {
		t.Errorf("OCI-Subject: got %q, want %s", got, digestOf(t, img))
	}
	s.collect(t)
	list(signature, sbom)
	// An index takes over the image that it lists, which stays a referrer until the index goes.
	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: signature})
	if err := remote.WriteIndex(s.ref(t, "team/app:signed"), index); err != nil {
		t.Fatal(err)
	}
	s.collect(t)
	list(signature, sbom)
	if err := remote.Delete(s.ref(t, "team/app:signed")); err != nil {
		t.Fatal(err)
	}
	list(sbom)
	if err := remote.Put(s.ref(t, "team/app@"+digestOf(t, signature)), signature); err != nil {
		t.Fatal(err)
	}
	list(signature, sbom)
	if err := remote.Delete(s.ref(t, "team/app@"+digestOf(t, sbom))); err != nil {
		t.Fatal(err)
	}
	list(signature)
	// A signature whose subject is gone has no meaning.
	collector := oci.NewCollector(s.stores, oci.Policy{}, nil, slog.New(slog.DiscardHandler))
	s.older(t, time.Hour)
	if done, err := collector.Prune(t.Context(), oci.Prune{}); err != nil || len(done.Images) != 0 {
		t.Errorf("with its subject there: %+v, %v", done, err)
	}
	if err := s.images.Delete(t.Context(), "team/app:1"); err != nil {
		t.Fatal(err)
	}
	s.collect(t)
	if done, err := collector.Prune(t.Context(), oci.Prune{}); err != nil || len(done.Images) != 1 || done.Images[0].Digest.String() != digestOf(t, signature) {
		t.Errorf("without its subject: %+v, %v", done, err)
	}
}

func TestDeleteBlob(t *testing.T) {
	s := newServer(t)
	d := digest.FromString("alone").String()
	s.answer(t, http.StatusCreated, "", http.MethodPost, "/v2/app/blobs/uploads/?digest="+d, "alone")
	s.answer(t, http.StatusOK, "", http.MethodHead, "/v2/app/blobs/"+d, "")
	s.answer(t, http.StatusAccepted, "", http.MethodDelete, "/v2/app/blobs/"+d, "")
	s.answer(t, http.StatusNotFound, "", http.MethodHead, "/v2/app/blobs/"+d, "")
	s.answer(t, http.StatusNotFound, "BLOB_UNKNOWN", http.MethodDelete, "/v2/app/blobs/"+d, "")
}
