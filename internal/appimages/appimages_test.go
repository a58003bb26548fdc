package appimages_test

import (
	"context"
	"encoding/pem"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"

	"penstock/internal/appimages"
	"penstock/internal/appsecrets"
	"penstock/internal/oci"
	"penstock/internal/oci/ocitest"
	"penstock/internal/resource"
	"penstock/internal/runtimes/local"
	"penstock/internal/seal"
	"penstock/internal/store"
)

const user, password = "bot", "hunter2"

var (
	chat  = resource.AppID("s", "g", "chat")
	plain = resource.AppID("s", "g", "plain")
	score = resource.JobID("s", "g", "score")
)

// upstream is another registry. Only one user can read its private repository.
func upstream(t *testing.T) (host string) {
	t.Helper()
	stores, _, _ := ocitest.Open(t)
	registry := oci.NewRegistry(stores, slog.New(slog.DiscardHandler))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, p, _ := r.BasicAuth()
		if strings.HasPrefix(r.URL.Path, "/v2/private/") && r.Method == http.MethodGet && (u != user || p != password) {
			w.Header().Set("WWW-Authenticate", `Basic realm="upstream"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		registry.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { server.Close(); registry.Close() })
	return strings.TrimPrefix(server.URL, "http://")
}

// push pushes an image with one layer.
func push(t *testing.T, ref, layer string) v1.Image {
	t.Helper()
	config := &v1.ConfigFile{Architecture: runtime.GOARCH, OS: "linux", RootFS: v1.RootFS{Type: "layers"}}
	image, err := mutate.ConfigFile(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON), config)
	if err != nil {
		t.Fatal(err)
	}
	if image, err = mutate.AppendLayers(image, static.NewLayer([]byte(layer), types.OCIUncompressedLayer)); err != nil {
		t.Fatal(err)
	}
	to, err := name.ParseReference(ref, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(to, image); err != nil {
		t.Fatalf("push %s: %v", ref, err)
	}
	return image
}

// server has the images of apps and jobs, and the store that they are pulled to.
type server struct {
	*appimages.Images
	documents *store.Store
	box       *seal.Box
	stores    oci.Stores
	images    *oci.Images
	dir       string
}

func newServer(t *testing.T) *server {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	documents, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "penstock.db"))
	if err != nil {
		t.Fatal(err)
	}
	box, err := seal.New(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	stores, db, dir := ocitest.Open(t)
	client, err := appimages.Registries{}.Client(log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close()
		if err := documents.Close(); err != nil {
			t.Error(err)
		}
	})
	// The containerd daemon collects garbage when a lease is deleted. Here the test does it.
	collect := func(ctx context.Context) error {
		_, err := db.GarbageCollect(ctx)
		return err
	}
	s := &server{documents: documents, box: box, stores: stores, images: oci.NewImages(stores), dir: dir}
	s.Images = appimages.New(appimages.Config{
		Store:     s.images,
		Puller:    oci.NewPuller(stores, client, nil, log),
		Collector: oci.NewCollector(stores, oci.Policy{}, collect, log),
		Secrets:   appsecrets.New(documents, box),
		Documents: documents,
	})
	return s
}

// keys returns the keyring of an app or a job with credentials for a registry.
func (s *server) keys(owner resource.ID, host, password string) resource.Keyring {
	secret := resource.AppSecret{Name: "pass"}
	secret.Sealed = s.box.Seal(secret.Purpose(owner), password)
	return resource.Keyring{
		Owner: owner, Secrets: []resource.AppSecret{secret},
		Registries: []resource.Registry{{Server: host, Username: user, PasswordSecretRef: "pass"}},
	}
}

func (s *server) putApp(t *testing.T, id resource.ID, keys resource.Keyring) {
	t.Helper()
	_, err := s.documents.Apps().Put(t.Context(), id, func(a *resource.App, _ bool) error {
		a.ID, a.Configuration.Secrets, a.Configuration.Registries = id, keys.Secrets, keys.Registries
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (s *server) putJob(t *testing.T, id resource.ID, keys resource.Keyring) {
	t.Helper()
	_, err := s.documents.Jobs().Put(t.Context(), id, func(j *resource.Job, _ bool) error {
		j.ID, j.Configuration.Secrets, j.Configuration.Registries = id, keys.Secrets, keys.Registries
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestDigest(t *testing.T) {
	host := upstream(t)
	image := push(t, host+"/private/model:1", "weights")
	want, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(t)
	if got, err := s.Digest(t.Context(), s.keys(chat, host, password), host+"/private/model:1"); err != nil || got != want.String() {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
	if _, err := s.Digest(t.Context(), resource.Keyring{}, host+"/public/none:1"); !errors.Is(err, resource.ErrNotFound) {
		t.Errorf("an image that is not there: got %v, want ErrNotFound", err)
	}
	missing := s.keys(chat, host, password)
	missing.Secrets = nil
	_, err = s.Digest(t.Context(), missing, host+"/private/model:1")
	if !errors.Is(err, resource.ErrNotFound) || !strings.Contains(err.Error(), "password for "+host) || !strings.Contains(err.Error(), `secret "pass" of chat`) {
		t.Errorf("a password that is not there: got %v, want ErrNotFound with registry and secret", err)
	}
}

func TestFetch(t *testing.T) {
	host := upstream(t)
	push(t, host+"/private/model:1", "weights")
	push(t, host+"/public/model:1", "other weights")
	s := newServer(t)
	s.putApp(t, chat, s.keys(chat, host, password))
	s.putJob(t, score, s.keys(score, host, "wrong"))
	s.putApp(t, plain, s.keys(plain, "elsewhere.test", password))

	if _, err := s.Fetch(t.Context(), score, host+"/private/model:1"); !errors.Is(err, local.ErrImageUnauthorized) || !errors.Is(err, local.ErrImageNotFound) {
		t.Errorf("wrong password: got %v, want ErrImageUnauthorized and ErrImageNotFound", err)
	}
	if _, err := s.Fetch(t.Context(), plain, host+"/private/model:1"); !errors.Is(err, local.ErrImageUnauthorized) {
		t.Errorf("password of another registry: got %v, want ErrImageUnauthorized", err)
	}
	if wire, err := s.Fetch(t.Context(), chat, host+"/private/model:1"); err != nil || wire < int64(len("weights")) {
		t.Errorf("got %d bytes, %v, want those of the image", wire, err)
	}
	if _, err := s.images.Resolve(t.Context(), host+"/private/model:1"); err != nil {
		t.Errorf("a fetched image: got %v, want it in the store", err)
	}
	if _, err := s.Fetch(t.Context(), resource.AppID("s", "g", "gone"), host+"/public/model:1"); err != nil {
		t.Errorf("an app that was deleted meanwhile, a public image: got %v, want no error", err)
	}
	if _, err := s.Fetch(t.Context(), chat, host+"/public/none:1"); !errors.Is(err, local.ErrImageNotFound) || errors.Is(err, local.ErrImageUnauthorized) {
		t.Errorf("an image that is not there: got %v, want ErrImageNotFound only", err)
	}
}

func TestNeeded(t *testing.T) {
	s := newServer(t)
	put := func(n int, job resource.ID, running bool, image string) {
		id := job.Child("executions", job.Base()+"-"+string(rune('a'+n)))
		e := resource.Execution{ID: id, Created: time.Unix(int64(n), 0).UTC()}
		e.Images = map[string]string{"i": image}
		if !running {
			e.Ended = e.Created
		}
		if _, _, err := s.documents.Executions().Create(t.Context(), e, nil); err != nil {
			t.Fatal(err)
		}
	}
	for n, image := range []string{"sha256:old", "sha256:new"} {
		id := chat.Child("revisions", "chat--"+string(rune('0'+n)))
		_, err := s.documents.Revisions().Put(t.Context(), id, func(r *resource.Revision, _ bool) error {
			r.ID, r.Off, r.Images = id, n == 0, map[string]string{"i": image}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	put(0, score, false, "sha256:ended")
	put(1, score, true, "sha256:runs")
	put(2, score, false, "sha256:last")
	got, err := appimages.Needed(t.Context(), s.documents)
	if err != nil {
		t.Fatal(err)
	}
	want := []digest.Digest{"sha256:last", "sha256:new", "sha256:old", "sha256:runs"}
	if keys := slices.Sorted(maps.Keys(got)); !slices.Equal(keys, want) {
		t.Errorf("got %v, want %v", keys, want)
	}
}

// damage truncates the file of a layer, and returns what a check of the store finds.
func (s *server) damage(t *testing.T, layer string) []oci.Damage {
	t.Helper()
	d := digest.FromString(layer)
	file := filepath.Join(s.dir, "content", "blobs", "sha256", d.Encoded())
	if err := errors.Join(os.Chmod(file, 0o600), os.WriteFile(file, []byte("damage!"), 0o600)); err != nil {
		t.Fatal(err)
	}
	found, err := s.images.Verify(t.Context())
	if err != nil || len(found.Damage) != 1 {
		t.Fatalf("verify: got %+v, %v, want one damaged blob", found, err)
	}
	return found.Damage
}

func TestRepair(t *testing.T) {
	const layer = "weights"
	tests := map[string]struct {
		keyrings func(t *testing.T, s *server, host string)
		repaired bool
	}{
		"with the credentials of an app": {func(t *testing.T, s *server, host string) { s.putApp(t, chat, s.keys(chat, host, password)) }, true},
		"with the credentials of a job":  {func(t *testing.T, s *server, host string) { s.putJob(t, score, s.keys(score, host, password)) }, true},
		"with the second credentials": {func(t *testing.T, s *server, host string) {
			s.putApp(t, chat, s.keys(chat, host, "wrong"))
			s.putApp(t, plain, s.keys(plain, host, password))
		}, true},
		"nobody has credentials any more": {func(*testing.T, *server, string) {}, false},
	}
	for title, test := range tests {
		t.Run(title, func(t *testing.T) {
			host := upstream(t)
			image := host + "/private/model:1"
			push(t, image, layer)
			s := newServer(t)
			s.putApp(t, chat, s.keys(chat, host, password))
			if _, err := s.Fetch(t.Context(), chat, image); err != nil {
				t.Fatal(err)
			}
			if err := s.documents.Apps().Delete(t.Context(), chat); err != nil {
				t.Fatal(err)
			}
			test.keyrings(t, s, host)
			repaired, left, err := s.Repair(t.Context(), s.damage(t, layer))
			if err != nil {
				t.Fatal(err)
			}
			if test.repaired && (len(left) != 0 || !slices.Equal(repaired, []string{image})) || !test.repaired && (left[image] == "" || len(repaired) != 0) {
				t.Fatalf("got %v repaired, %v left", repaired, left)
			}
			found, err := s.images.Verify(t.Context())
			if err != nil || test.repaired && len(found.Damage) != 0 {
				t.Errorf("verify after the repair: got %+v, %v", found, err)
			}
		})
	}
}

func TestRepairOfPushedImage(t *testing.T) {
	s := newServer(t)
	registry := oci.NewRegistry(s.stores, slog.New(slog.DiscardHandler))
	here := httptest.NewServer(registry)
	t.Cleanup(func() { here.Close(); registry.Close() })
	push(t, strings.TrimPrefix(here.URL, "http://")+"/chat:1", "weights")
	repaired, left, err := s.Repair(t.Context(), s.damage(t, "weights"))
	if err != nil || len(repaired) != 0 || left["chat:1"] != "push it again" {
		t.Errorf("got %v, %v, %v, want chat:1 left to be pushed again", repaired, left, err)
	}
}

func TestRegistryCA(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "bad.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := errors.Join(os.WriteFile(good, block, 0o600), os.WriteFile(bad, []byte("no certificate"), 0o600)); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	for file, fault := range map[string]string{bad: "want certificates in PEM", filepath.Join(dir, "gone"): "no such file"} {
		if _, err := (appimages.Registries{CA: file}).Client(log); err == nil || !strings.Contains(err.Error(), "registry-ca: ") || !strings.Contains(err.Error(), fault) {
			t.Errorf("%s: got %v, want an error about registry-ca with %q", filepath.Base(file), err, fault)
		}
	}
	client, err := appimages.Registries{CA: good}.Client(log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	stores, _, _ := ocitest.Open(t)
	puller := oci.NewPuller(stores, client, nil, log)
	images := appimages.New(appimages.Config{Puller: puller, Secrets: appsecrets.New(nil, nil)})
	_, err = images.Digest(context.WithoutCancel(t.Context()), resource.Keyring{}, strings.TrimPrefix(server.URL, "https://")+"/model:1")
	if !errors.Is(err, resource.ErrNotFound) {
		t.Errorf("a registry with a certificate of that CA: got %v, want the registry's answer that there is no such image", err)
	}
}

// importer fails or succeeds, and counts its calls.
type importer struct {
	err   error
	calls int
}

func (i *importer) Import(context.Context, string) (int, error) {
	i.calls++
	return 1, i.err
}

func TestTakeRestored(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	dir := filepath.Join(t.TempDir(), "import")
	in := &importer{err: errors.New("disk is full")}
	take := func() { appimages.TakeRestored(t.Context(), dir, in, log) }
	take()
	if in.calls != 0 {
		t.Error("imported though no backup was restored")
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	take()
	if _, err := os.Stat(dir); err != nil || in.calls != 1 {
		t.Fatalf("a failed import: got %v after %d calls, want the folder kept after 1", err, in.calls)
	}
	in.err = nil
	take()
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) || in.calls != 2 {
		t.Errorf("the next start: got %v after %d calls, want the folder removed after 2", err, in.calls)
	}
}
