package admin_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"penstock/internal/admin/wire"
	"penstock/internal/oci"
	"penstock/internal/oci/remote"
	"penstock/internal/resource"
	"penstock/internal/runtimes"
	"penstock/internal/weights"
)

func TestWithoutImages(t *testing.T) {
	s := newServer(t, false)
	for _, path := range []string{wire.ImagesPath, wire.PullsPath} {
		if _, body := s.do(t, http.MethodGet, path, ""); strings.TrimSpace(body) != `{"value":[]}` {
			t.Errorf("GET %s: got %s, want an empty list", path, body)
		}
	}
	for _, call := range []string{
		"GET " + wire.ImagesPath + "/chat:1", "DELETE " + wire.ImagesPath + "/chat:1", "POST " + wire.PrunePath, "POST " + wire.VerifyPath,
		"POST " + wire.PullsPath, "GET " + wire.LayoutPath, "POST " + wire.LayoutPath,
	} {
		method, path, _ := strings.Cut(call, " ")
		s.refuse(t, method, path, "", http.StatusNotFound, "ImageNotFound", "the fake runtime keeps no images")
	}
}

func TestListImages(t *testing.T) {
	s := newServer(t, true)
	s.images.list = []oci.Summary{summary("chat:1"), {Name: "empty:1"}}
	got := get[wire.List[wire.Image]](t, s, http.MethodGet, wire.ImagesPath, "")
	equal(t, "images", got.Value, []wire.Image{image, {Name: "empty:1", Layers: []wire.Layer{}}})
	s.images.err = errors.New("disk failed")
	s.refuse(t, http.MethodGet, wire.ImagesPath, "", http.StatusInternalServerError, "ImageStoreFailed", "disk failed")
}

func TestInspectImage(t *testing.T) {
	s := newServer(t, true)
	s.images.list = []oci.Summary{summary("chat:1"), summary("docker.io/library/nginx:1")}
	s.images.files = []weights.File{{
		Path: "m/model.safetensors", Format: weights.Safetensors, Size: 100, Parts: []weights.Part{{Type: "F16", Parameters: 50, Bytes: 100}},
	}}
	runs, other := chat.Child("revisions", "chat--1"), chat.Child("revisions", "chat--0")
	s.machine.revision = map[string]resource.Revision{
		runs.Key():  {ID: runs, Images: map[string]string{"chat:1": "sha256:1"}},
		other.Key(): {ID: other, Images: map[string]string{"chat:0": "sha256:0"}},
	}
	s.machine.replicas = []resource.Replica{
		{Name: "a", Revision: runs}, {Name: "starts", Revision: runs}, {Name: "other", Revision: other}, {Name: "stray"},
	}
	s.machine.mapped = map[string]runtimes.Mapped{"a": {RSS: 200, PSS: 120}, "other": {RSS: 1, PSS: 1}, "stray": {RSS: 1, PSS: 1}}
	got := get[wire.ImageDetails](t, s, http.MethodGet, wire.ImagesPath+"/chat:1", "")
	if len(got.Models) != 1 || got.Models[0].Needs < 100 {
		t.Fatalf("got models %+v, want one that needs at least its weights", got.Models)
	}
	got.Models[0].Needs = 0
	equal(t, "image", got, wire.ImageDetails{
		Image:    image,
		Models:   []wire.Model{{Path: "m/model.safetensors", Format: "safetensors", Files: 1, Parameters: 50, Bytes: 100, Type: "F16"}},
		Replicas: []wire.ImageReplica{{Name: "a", Revision: "chat--1", RSS: 200, PSS: 120}},
	})
	if got := get[wire.ImageDetails](t, s, http.MethodGet, wire.ImagesPath+"/docker.io/library/nginx:1", ""); got.Name != "docker.io/library/nginx:1" {
		t.Errorf("a name with slashes: got %s", got.Name)
	}
	s.refuse(t, http.MethodGet, wire.ImagesPath+"/gone:1", "", http.StatusNotFound, "ImageNotFound", "")
	s.images.resolve = map[string]error{"bad:1": errors.New("manifest cannot be read")}
	s.refuse(t, http.MethodGet, wire.ImagesPath+"/bad:1", "", http.StatusBadRequest, "ImageNotReadable", "manifest cannot be read")
	s.images.err = errors.New("disk failed")
	s.refuse(t, http.MethodGet, wire.ImagesPath+"/chat:1", "", http.StatusInternalServerError, "ImageStoreFailed", "disk failed")
}

func TestDeleteImage(t *testing.T) {
	s := newServer(t, true)
	if status, body := s.do(t, http.MethodDelete, wire.ImagesPath+"/docker.io/library/nginx:1", ""); status != http.StatusNoContent || body != "" {
		t.Errorf("got %d %s, want 204", status, body)
	}
	if want := []string{"docker.io/library/nginx:1"}; !slices.Equal(s.images.deleted, want) {
		t.Errorf("got %v deleted, want %v", s.images.deleted, want)
	}
	s.images.resolve = map[string]error{"gone:1": oci.ErrNotFound, "bad": errors.New("want a tag")}
	s.refuse(t, http.MethodDelete, wire.ImagesPath+"/gone:1", "", http.StatusNotFound, "ImageNotFound", "")
	s.refuse(t, http.MethodDelete, wire.ImagesPath+"/bad", "", http.StatusBadRequest, "ImageNotDeleted", "want a tag")
}

func TestPruneImages(t *testing.T) {
	s := newServer(t, true)
	s.images.pruned = oci.Pruned{Images: []oci.PrunedImage{{Name: "chat:0", Digest: "sha256:0", Why: "no revision needs it", Bytes: 9}}, Bytes: 8}
	got := get[wire.Pruned](t, s, http.MethodPost, wire.PrunePath+"?dryRun=true&all=true", "")
	equal(t, "pruned", got, wire.Pruned{Images: []wire.PrunedImage{{Name: "chat:0", Digest: "sha256:0", Why: "no revision needs it", Bytes: 9}}, Bytes: 8})
	if !s.images.prune.DryRun || !s.images.prune.All {
		t.Errorf("got %+v, want both parameters passed on", s.images.prune)
	}
	if s.do(t, http.MethodPost, wire.PrunePath, ""); s.images.prune.DryRun || s.images.prune.All {
		t.Errorf("without parameters: got %+v, want neither", s.images.prune)
	}
	s.refuse(t, http.MethodPost, wire.PrunePath+"?all=maybe", "", http.StatusBadRequest, "InvalidParameterValue", `all: want true or false, got "maybe"`)
	s.images.err = errors.New("disk failed")
	s.refuse(t, http.MethodPost, wire.PrunePath, "", http.StatusInternalServerError, "ImageStoreFailed", "disk failed")
}

func TestVerifyImages(t *testing.T) {
	s := newServer(t, true)
	s.images.found = oci.Verified{Blobs: 3, Bytes: 30}
	got := get[wire.Verified](t, s, http.MethodPost, wire.VerifyPath+"?repair=true", "")
	whole := wire.Verified{Blobs: 3, Bytes: 30, Damage: []wire.Damage{}, Repaired: []string{}, Left: map[string]string{}}
	equal(t, "nothing is damaged", got, whole)
	if s.images.damage != nil {
		t.Errorf("repaired %v, want no repair while nothing is damaged", s.images.damage)
	}
	s.images.found.Damage = []oci.Damage{{Digest: "sha256:1", Fault: "it is missing", Images: []string{"chat:1", "web:1"}}}
	damaged := whole
	damaged.Damage = []wire.Damage{{Digest: "sha256:1", Fault: "it is missing", Images: []string{"chat:1", "web:1"}}}
	equal(t, "damaged", get[wire.Verified](t, s, http.MethodPost, wire.VerifyPath, ""), damaged)
	if s.images.damage != nil {
		t.Error("repaired, want no repair that nobody asked for")
	}
	damaged.Repaired, damaged.Left = []string{"chat:1"}, map[string]string{"web:1": "push it again"}
	equal(t, "repaired", get[wire.Verified](t, s, http.MethodPost, wire.VerifyPath+"?repair=true", ""), damaged)
	s.refuse(t, http.MethodPost, wire.VerifyPath+"?repair=2", "", http.StatusBadRequest, "InvalidParameterValue", `repair: want true or false, got "2"`)
	s.images.err = errors.New("disk failed")
	s.refuse(t, http.MethodPost, wire.VerifyPath, "", http.StatusInternalServerError, "ImageStoreFailed", "disk failed")
}

func TestLayout(t *testing.T) {
	s := newServer(t, true)
	s.images.list = []oci.Summary{summary("chat:1"), summary("web:1")}
	s.images.resolve = map[string]error{"arm:1": oci.ErrPlatform, "bad": errors.New("want a tag")}
	for query, want := range map[string]string{"": "layout of ", "?name=chat:1&name=arm:1": "layout of chat:1,arm:1"} {
		if status, body := s.do(t, http.MethodGet, wire.LayoutPath+query, ""); status != http.StatusOK || body != want {
			t.Errorf("%q: got %d %s, want %s", query, status, body, want)
		}
	}
	s.refuse(t, http.MethodGet, wire.LayoutPath+"?name=gone:1", "", http.StatusNotFound, "ImageNotFound", "")
	s.refuse(t, http.MethodGet, wire.LayoutPath+"?name=bad", "", http.StatusBadRequest, "ImageNotReadable", "want a tag")

	equal(t, "loaded", get[wire.Loaded](t, s, http.MethodPost, wire.LayoutPath+"?name=chat:2", "archive"), wire.Loaded{Images: []string{"chat:1"}})
	if s.images.loaded != "archive" || s.images.loadedAs != "chat:2" {
		t.Errorf("got %q as %q, want the archive as chat:2", s.images.loaded, s.images.loadedAs)
	}
	s.images.err = errors.New("want an OCI layout")
	s.refuse(t, http.MethodPost, wire.LayoutPath, "junk", http.StatusBadRequest, "ImageNotLoaded", "want an OCI layout")
}

func TestListPulls(t *testing.T) {
	s := newServer(t, true)
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s.images.active = []oci.Progress{{Image: "docker.io/library/nginx:1", Began: began, Total: 7, Done: 1, Here: 2, Wire: 3, Blobs: 5, Whole: 4}}
	got := get[wire.List[wire.Pull]](t, s, http.MethodGet, wire.PullsPath, "")
	equal(t, "pulls", got.Value, []wire.Pull{{Image: "docker.io/library/nginx:1", Began: began, Total: 7, Done: 1, Here: 2, Wire: 3, Blobs: 5, Whole: 4}})
}

const nginx = "docker.io/library/nginx:1"

func TestPullImage(t *testing.T) {
	s := newServer(t, true)
	s.images.active = []oci.Progress{{Image: "docker.io/library/other:1", Total: 1}, {Image: nginx, Total: 100, Done: 10}}
	told := make(chan struct{})
	var login remote.Login
	s.images.pull = func(ctx context.Context, name string, l remote.Login) (oci.Image, oci.Progress, error) {
		login = l
		select {
		case <-told:
		case <-ctx.Done():
			return oci.Image{}, oci.Progress{}, context.Cause(ctx)
		}
		return oci.Image{Name: name, Digest: "sha256:1", Size: 100, Config: oci.Config{Cmd: []string{"serve"}, Ports: []int{80}}},
			oci.Progress{Image: name, Total: 100, Done: 90, Here: 10, Wire: 95, Blobs: 2, Whole: 2}, nil
	}
	resp, err := s.Client().Post(s.URL+wire.PullsPath, "application/json", strings.NewReader(`{"image":"`+nginx+`","username":"bot","password":"p"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := json.NewDecoder(resp.Body)
	var first wire.Pull
	if err := lines.Decode(&first); err != nil {
		t.Fatal(err)
	}
	equal(t, "first line", first, wire.Pull{Image: nginx, Total: 100, Done: 10})
	close(told)
	var end wire.PullEnd
	for end.Image == nil && end.Error == nil {
		end = wire.PullEnd{}
		if err := lines.Decode(&end); err != nil {
			t.Fatalf("no last line: %v", err)
		}
	}
	end.TookMS = 0
	equal(t, "last line", end, wire.PullEnd{
		Image: &wire.PulledImage{Name: nginx, Digest: "sha256:1", Size: 100, Config: wire.ImageConfig{Cmd: []string{"serve"}, Ports: []int{80}}},
		Moved: &wire.Pull{Image: nginx, Total: 100, Done: 90, Here: 10, Wire: 95, Blobs: 2, Whole: 2},
	})
	if login != remote.NewLogin("bot", "p") {
		t.Errorf("got login %s, want that of the request", login)
	}
}

func TestPullFails(t *testing.T) {
	s := newServer(t, true)
	for code, fault := range map[string]error{
		"ImagePullUnauthorized": remote.ErrUnauthorized, "ImageNotFound": oci.ErrNotFound, "ImagePlatformMismatch": oci.ErrPlatform,
		"ImagePullFailed": errors.New("no route to host"),
	} {
		s.images.pull = func(context.Context, string, remote.Login) (oci.Image, oci.Progress, error) {
			return oci.Image{}, oci.Progress{}, fmt.Errorf("image %q: %w", nginx, fault)
		}
		end := get[wire.PullEnd](t, s, http.MethodPost, wire.PullsPath, `{"image":"`+nginx+`"}`)
		if end.Error == nil || end.Error.Code != code || !strings.Contains(end.Error.Message, nginx) || end.Image != nil {
			t.Errorf("%v: got %+v, want %s", fault, end, code)
		}
	}
	for body, want := range map[string][2]string{
		``:                                    {"InvalidRequestContent", "want {"},
		`{"image":"` + nginx + `","tag":"1"}`: {"InvalidRequestContent", "tag"},
		`{"image":""}`:                        {"InvalidParameterValue", ""},
		`{"image":"nginx:1"}`:                 {"InvalidParameterValue", "docker.io/library/nginx:1"},
		`{"image":"` + nginx + `","username":"u"}`: {"InvalidParameterValue", "want username and password, or neither"},
		`{"image":"` + strings.Repeat("a", 70_000): {"InvalidRequestContent", "too large"},
	} {
		s.refuse(t, http.MethodPost, wire.PullsPath, body, http.StatusBadRequest, want[0], want[1])
	}
}

func TestPullEndsWithItsClient(t *testing.T) {
	s := newServer(t, true)
	ended := make(chan error, 1)
	began := make(chan struct{})
	s.images.pull = func(ctx context.Context, _ string, _ remote.Login) (oci.Image, oci.Progress, error) {
		close(began)
		<-ctx.Done()
		ended <- ctx.Err()
		return oci.Image{}, oci.Progress{}, ctx.Err()
	}
	ctx, leave := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+wire.PullsPath, strings.NewReader(`{"image":"`+nginx+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		<-began
		leave()
	}()
	if resp, err := s.Client().Do(r); err == nil {
		resp.Body.Close()
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("the pull goes on after its client has left")
	}
}
