//go:build linux

package build_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"penstock/internal/build"
)

func configOf(t *testing.T, s *server, image string) *v1.ConfigFile {
	t.Helper()
	ref, err := name.ParseReference(strings.TrimPrefix(s.URL, "http://") + "/" + image)
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func TestImageOnAnother(t *testing.T) {
	s := newServer(t)
	lower := newProject(t, map[string]string{"image.yaml": `
layers: [{name: deps, from: deps, to: /deps}]
entrypoint: [/deps/python]
cmd: [old]
env: {A: "1", B: "2"}
user: "7"
workdir: /deps
ports: [80]
labels: {a: b}
`, "deps/python": "python"})
	below := lower.build(t, s)

	p := newProject(t, map[string]string{"image.yaml": `
base: {image: "app:1"}
layers: [{name: code, from: code, to: /code}]
cmd: [new]
env: {B: "3"}
ports: [81]
`, "code/main.py": "code"})
	opts := p.options(s)
	opts.Name = "top:1"
	top, err := build.Build(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	if len(top.Layers) != 2 || top.Layers[0].Name != "deps" || top.Layers[0].Digest != below.Layers[0].Digest || top.Layers[0].Pushed {
		t.Errorf("got %+v, want the base's layer as it is", top.Layers)
	}
	got := configOf(t, s, "top:1").Config
	want := v1.Config{
		Entrypoint: []string{"/deps/python"}, Cmd: []string{"new"}, Env: []string{"A=1", "B=3"}, User: "7", WorkingDir: "/deps",
		ExposedPorts: map[string]struct{}{"80/tcp": {}, "81/tcp": {}}, Labels: map[string]string{"a": "b"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	if again, err := build.Build(t.Context(), opts); err != nil || again.Hashed != 0 || again.Moved != 0 {
		t.Errorf("again: %+v, %v", again, err)
	}
	pull(t, s, "top:1")

	t.Run("an entrypoint of its own ends the base's cmd", func(t *testing.T) {
		p.write(t, map[string]string{"image.yaml": "base: {image: \"app:1\"}\nentrypoint: [/x]\nuser: root\n"})
		p.build(t, s)
		if got := configOf(t, s, "app:1").Config; len(got.Cmd) != 0 || got.Entrypoint[0] != "/x" || got.User != "root" {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("one that is not there is named", func(t *testing.T) {
		p.write(t, map[string]string{"image.yaml": "base: {image: \"chat:7\"}\n"})
		if _, err := build.Build(t.Context(), p.options(s)); err == nil || !strings.Contains(err.Error(), `base.image: want an image on this server, got "chat:7", which does not exist`) {
			t.Errorf("got %v", err)
		}
	})
}

func TestImageOnALayout(t *testing.T) {
	s := newServer(t)
	lower := newProject(t, model())
	below := lower.build(t, s)
	ref, err := name.ParseReference(strings.TrimPrefix(s.URL, "http://") + "/app:1")
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	p := newProject(t, map[string]string{"code/main.py": "code"})
	folder, err := layout.Write(filepath.Join(p.dir, "image"), empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := folder.AppendImage(img); err != nil {
		t.Fatal(err)
	}
	pack(t, filepath.Join(p.dir, "image"), filepath.Join(p.dir, "image.tar"))

	for _, from := range []string{"image", "image.tar"} {
		t.Run(from, func(t *testing.T) {
			other := newServer(t)
			p.write(t, map[string]string{"image.yaml": "base: {layout: " + from + "}\nlayers: [{name: code, from: code, to: /code}]\n"})
			first := p.build(t, other)
			if first.Layers[0].Digest != below.Layers[0].Digest || !first.Layers[0].Pushed {
				t.Errorf("got %+v", first.Layers)
			}
			pull(t, other, "app:1")
			if again := p.build(t, other); again.Hashed != 0 || again.Moved != 0 {
				t.Errorf("again: %+v", again)
			}
		})
	}
	faults := map[string]struct {
		spoil func(t *testing.T, dir string)
		want  string
	}{
		"no layout": {func(t *testing.T, dir string) { removeAll(t, filepath.Join(dir, "index.json")) }, "want an OCI image layout"},
		"a changed config": {func(t *testing.T, dir string) {
			manifest, err := img.Manifest()
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(dir, "blobs", "sha256", manifest.Config.Digest.Hex)
			if err := os.WriteFile(file, []byte("{}"), 0o644); err != nil {
				t.Fatal(err)
			}
		}, "the content does not match the digest"},
		"a changed layer": {func(t *testing.T, dir string) {
			file := filepath.Join(dir, "blobs", "sha256", strings.TrimPrefix(below.Layers[1].Digest, "sha256:"))
			if err := os.WriteFile(file, bytes.Repeat([]byte("x"), int(below.Layers[1].Size)), 0o644); err != nil {
				t.Fatal(err)
			}
		}, "DIGEST_INVALID"},
		"a link out of it": {func(t *testing.T, dir string) {
			removeAll(t, filepath.Join(dir, "index.json"))
			if err := os.Symlink("/etc/passwd", filepath.Join(dir, "index.json")); err != nil {
				t.Fatal(err)
			}
		}, "escapes"},
	}
	for what, tt := range faults {
		t.Run(what, func(t *testing.T) {
			bad := newProject(t, map[string]string{"image.yaml": "base: {layout: image}\n"})
			if err := os.CopyFS(filepath.Join(bad.dir, "image"), os.DirFS(filepath.Join(p.dir, "image"))); err != nil {
				t.Fatal(err)
			}
			tt.spoil(t, filepath.Join(bad.dir, "image"))
			if _, err := build.Build(t.Context(), bad.options(newServer(t))); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestImageOnARootFS(t *testing.T) {
	s := newServer(t)
	p := newProject(t, map[string]string{"tree/usr/bin/su": "su", "tree/etc/passwd": "root:x:0:0::/:/bin/sh\n"})
	for _, err := range []error{
		os.Chmod(filepath.Join(p.dir, "tree/usr/bin/su"), os.ModeSetuid|0o755),
		os.Link(filepath.Join(p.dir, "tree/usr/bin/su"), filepath.Join(p.dir, "tree/usr/bin/su2")),
		os.Symlink("usr/bin", filepath.Join(p.dir, "tree/bin")),
		os.Mkdir(filepath.Join(p.dir, "tree/tmp"), 0o777),
		os.Chmod(filepath.Join(p.dir, "tree/tmp"), os.ModeSticky|0o777),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	owner := fmt.Sprintf("%d:%d", os.Geteuid(), os.Getegid())
	pack(t, filepath.Join(p.dir, "tree"), filepath.Join(p.dir, "tree.tar"))
	for _, from := range []string{"tree", "tree.tar"} {
		t.Run(from, func(t *testing.T) {
			p.write(t, map[string]string{"image.yaml": "base: {rootfs: " + from + "}\ncmd: [sh]\n"})
			first := p.build(t, s)
			want := []string{"bin 777 " + owner + " -> usr/bin", "etc/ 755 " + owner, "etc/passwd 644 " + owner + " 22", "tmp/ 1777 " + owner, "usr/ 755 " + owner, "usr/bin/ 755 " + owner, "usr/bin/su 4755 " + owner + " 2", "usr/bin/su2 4755 " + owner}
			if got := pullWith(t, s, "app:1", true)[0]; cmp.Diff(want, got) != "" {
				t.Errorf("(-want +got):\n%s", cmp.Diff(want, got))
			}
			if again := p.build(t, s); again.Hashed != 0 || again.Moved != 0 || again.Digest != first.Digest {
				t.Errorf("again: %+v", again)
			}
		})
	}
	if got := configOf(t, s, "app:1").Config.User; got != "65532" {
		t.Errorf("user %q, want 65532: a tree does not say who runs", got)
	}
	t.Run("one with a path that climbs", func(t *testing.T) {
		if err := os.WriteFile(filepath.Join(p.dir, "bad.tar"), tarOf(t, file("../x", "y")), 0o644); err != nil {
			t.Fatal(err)
		}
		p.write(t, map[string]string{"image.yaml": "base: {rootfs: bad.tar}\n"})
		if _, err := build.Build(t.Context(), p.options(s)); err == nil || !strings.Contains(err.Error(), `want a path inside the image, got "../x"`) {
			t.Errorf("got %v", err)
		}
	})
}

func FuzzRootFS(f *testing.F) {
	f.Add(tarOf(f, system()[2:]...))
	f.Add(tarOf(f, file("a/../../b", "x"), folder("c/"), file("c/.wh.d", "")))
	f.Add(tarOf(f, file("a", "x"), tar.Header{Typeflag: tar.TypeLink, Name: "b", Linkname: "a"}, tar.Header{Typeflag: tar.TypeBlock, Name: "c"}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		layer, above, err := build.PackTree(t.Context(), raw)
		if err != nil {
			return
		}
		for r := tar.NewReader(bytes.NewReader(layer)); ; {
			h, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("a layer that cannot be read: %v", err)
			}
			clean := filepath.Clean(h.Name)
			if filepath.IsAbs(clean) || strings.HasPrefix(clean, "..") && (clean == ".." || strings.HasPrefix(clean, "../")) || strings.Contains("/"+h.Name, "/.wh.") || h.Typeflag == tar.TypeBlock || h.Typeflag == tar.TypeChar {
				t.Fatalf("it lets through %+v", h)
			}
		}
		if _, err := tar.NewReader(bytes.NewReader(above)).Next(); !errors.Is(err, io.EOF) {
			t.Fatalf("the same tree above itself is a layer with something in it: %v", err)
		}
	})
}

func FuzzLayout(f *testing.F) {
	config, err := json.Marshal(v1.ConfigFile{OS: "linux", RootFS: v1.RootFS{Type: "layers"}})
	if err != nil {
		f.Fatal(err)
	}
	hash, _, err := v1.SHA256(bytes.NewReader(config))
	if err != nil {
		f.Fatal(err)
	}
	manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[]}`, hash, len(config))
	hash, _, err = v1.SHA256(strings.NewReader(manifest))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":%d}]}`, hash, len(manifest)), manifest, string(config))
	f.Add(`{"manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"sha256:x"}]}`, "{}", "{}")
	f.Fuzz(func(t *testing.T, index, manifest, config string) {
		if layers, err := build.LayoutImage([]byte(index), []byte(manifest), []byte(config)); err == nil && layers > 127 {
			t.Errorf("%d layers", layers)
		}
	})
}

// pack makes a tar of a folder, as tar(1) does.
func pack(t *testing.T, dir, to string) {
	t.Helper()
	f, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := tar.NewWriter(f)
	linked := map[string]bool{}
	err = filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || path == dir {
			return err
		}
		link, _ := os.Readlink(path) // of what is no link: empty
		h, err := tar.FileInfoHeader(info, link)
		if err != nil {
			return err
		}
		if h.Name, err = filepath.Rel(dir, path); err != nil {
			return err
		}
		if filepath.Base(path) == "su2" && linked["su"] {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, "usr/bin/su", 0
		}
		linked[filepath.Base(path)] = true
		if err := w.WriteHeader(h); err != nil || h.Typeflag != tar.TypeReg {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		_, err = w.Write(content)
		return err
	})
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
}

func removeAll(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}
