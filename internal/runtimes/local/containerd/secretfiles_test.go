package containerd_test

import (
	"bytes"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"penstock/internal/resource"
	"penstock/internal/runtimes"
	"penstock/internal/runtimes/local"
)

type secretFiles = map[string]resource.Secret

func (l *lab) put(replica, volume string, files secretFiles) (changed bool) {
	l.Helper()
	changed, err := l.driver.PutSecrets(l.Context(), replica, volume, files)
	if err != nil {
		l.Fatal(err)
	}
	return changed
}

// withSecrets starts a hello server that runs as an ordinary user and mounts a volume of secrets.
func (l *lab) withSecrets(name string, files secretFiles, mounts ...resource.VolumeMount) *replica {
	l.Helper()
	s, c := l.sandbox(name), l.containerOf(name, l.push(func(c *v1.Config) { c.User = "model" }))
	for _, m := range mounts {
		c.Mounts = append(c.Mounts, local.Mount{VolumeMount: m, Type: resource.SecretFiles})
	}
	address, err := l.driver.CreateSandbox(l.Context(), s)
	if err != nil {
		l.Fatal(err)
	}
	l.put(name, "keys", files)
	if err := l.driver.Create(l.Context(), c); err != nil {
		l.Fatal(err)
	}
	pid, err := l.driver.Start(l.Context(), c.ID)
	if err != nil {
		l.Fatal(err)
	}
	r := &replica{lab: l, name: name, id: c.ID, pid: pid, address: address}
	r.waitReady()
	return r
}

func TestSecretsAsFiles(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	r := l.withSecrets("app--0000001-a", secretFiles{"key": "one", "tls/deep/key.pem": "pem one"},
		resource.VolumeMount{Volume: "keys", Path: "/keys"},
		resource.VolumeMount{Volume: "keys", Path: "/etc/key", SubPath: "key"},
		resource.VolumeMount{Volume: "keys", Path: "/tls", SubPath: "tls/deep/"})
	has := func(when string, files map[string]string) {
		t.Helper()
		for path, want := range files {
			got, err := r.try("GET", "/file", url.Values{"path": {path}})
			if want == "" && (err == nil || !strings.Contains(err.Error(), "no such file")) || want != "" && got != want {
				t.Errorf("%s: %s: got %q, %v; want %q", when, path, got, err, want)
			}
		}
	}
	has("at first", map[string]string{"/keys/key": "one", "/keys/tls/deep/key.pem": "pem one", "/etc/key": "one", "/tls/key.pem": "pem one"})
	if mounts := r.file("/proc/mounts"); !strings.Contains(mounts, " /keys tmpfs ro,nosuid,nodev,noexec,") {
		t.Errorf("the container sees its mounts as\n%s", mounts)
	}
	for _, path := range []string{"/keys/key", "/keys/new", "/keys/..data/key", "/etc/key", "/tls/key.pem"} {
		if _, err := r.try("POST", "/write", url.Values{"path": {path}, "mb": {"0"}}); err == nil || !strings.Contains(err.Error(), "read-only file system") {
			t.Errorf("write %s: got %v", path, err)
		}
	}

	if l.put(r.name, "keys", secretFiles{"key": "one", "tls/deep/key.pem": "pem one"}) {
		t.Error("the same files are a change")
	}
	next := secretFiles{"key": "two", "tls/other.pem": "other", "new": "more"}
	if !l.put(r.name, "keys", next) {
		t.Error("other files are no change")
	}
	changed := map[string]string{
		"/keys/key": "two", "/keys/new": "more", "/keys/tls/other.pem": "other", "/keys/tls/deep/key.pem": "",
		"/etc/key": "one", "/tls/key.pem": "pem one", // as they were when the container was created
	}
	has("changed", changed)
	l.close()
	l.open()
	if l.put(r.name, "keys", next) {
		t.Error("the same files are a change after a restart")
	}
	has("after a restart of the platform", changed)

	// This is the state after a crash in the middle of an update.
	volume := filepath.Join(l.dir, "s/m/v", r.name, "keys")
	if err := os.Mkdir(filepath.Join(volume, "..half"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(volume, "new")); err != nil {
		t.Fatal(err)
	}
	l.put(r.name, "keys", next)
	if _, err := os.Stat(filepath.Join(volume, "..half")); err == nil {
		t.Error("half a change is left")
	}
	has("after a crash", changed)
	if err := l.driver.Delete(t.Context(), r.id); err != nil {
		t.Fatal(err)
	}
	if err := l.driver.RemoveSandbox(t.Context(), r.name); err != nil {
		t.Fatal(err)
	}
	for _, line := range l.leftovers() {
		t.Error("left behind:", line)
	}
}

func TestNoSuchSecrets(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	r := l.withSecrets("app--0000001-a", secretFiles{"key": "one"})
	for _, name := range []string{"", "/etc/passwd", "../x", "a/../../x", "..data", ".hidden", "a//b", "a/"} {
		if _, err := l.driver.PutSecrets(t.Context(), r.name, "keys", secretFiles{name: "x"}); err == nil {
			t.Errorf("a file %q was put", name)
		}
	}
	for _, volume := range []string{"", ".", "..", "../other", "a/b"} {
		if _, err := l.driver.PutSecrets(t.Context(), r.name, volume, secretFiles{"key": "x"}); err == nil {
			t.Errorf("a volume %q was made", volume)
		}
	}
	for _, sub := range []string{"none", "..data/key", "key/below"} {
		c := l.containerOf(r.name, l.push(nil))
		c.ID, c.Name = r.name+"/other", "other"
		c.Mounts = []local.Mount{{VolumeMount: resource.VolumeMount{Volume: "keys", Path: "/m", SubPath: sub}, Type: resource.SecretFiles}}
		if err := l.driver.Create(t.Context(), c); err == nil || !strings.Contains(err.Error(), `which has ["key"]`) {
			t.Errorf("sub path %q: got %v", sub, err)
		}
	}
}

// A reader sees one of the complete states while secrets change.
func TestSecretsChangeAtOnce(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	s := l.sandbox("app--0000001-a")
	if _, err := l.driver.CreateSandbox(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	state := func(i int) secretFiles {
		long := strings.Repeat(string(rune('a'+i%26)), 100_000)
		return secretFiles{"cert": resource.Secret(long), "tls/key": resource.Secret(long)}
	}
	l.put(s.Replica, "keys", state(0))
	volume := filepath.Join(l.dir, "s/m/v", s.Replica, "keys")
	const changes = 200
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(done)
		for i := range changes {
			l.put(s.Replica, "keys", state(i))
		}
	})
	reads := 0
	for over := false; !over; reads++ {
		select {
		case <-done:
			over = true
		default:
		}
		one, err := os.ReadFile(filepath.Join(volume, "cert"))
		if os.IsNotExist(err) { // removed between reading ..data and opening the file
			continue
		}
		if err != nil || len(one) != 100_000 || bytes.Count(one, one[:1]) != len(one) {
			t.Fatalf("read %d bytes, %v", len(one), err)
		}
		// A program that needs several files of the same state opens ..data once.
		root, err := os.OpenRoot(filepath.Join(volume, "..data"))
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		cert, errCert := root.ReadFile("cert")
		key, errKey := root.ReadFile("tls/key")
		root.Close()
		if errCert == nil && errKey == nil && !bytes.Equal(cert, key) {
			t.Fatalf("cert begins with %q, key with %q", cert[0], key[0])
		}
	}
	wg.Wait()
	t.Logf("%d reads over %d changes", reads, changes)
}

// The values of a container's variables are only in memory, and in no file on disk, both while the container lives and
// afterwards. The same holds for a command that runs in it.
func TestVariablesAreOnNoDisk(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	const secret = "ohHae7quiethu3Ie"
	r := l.run("app--0000001-a", func(_ *local.Sandbox, c *local.Container) {
		c.Env = append(c.Env, resource.EnvVar{Name: "PASSWORD", Value: secret})
	})
	search := func(when string, memory bool) (files int) {
		t.Helper()
		err := filepath.WalkDir(l.dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				if os.IsNotExist(err) {
					return nil
				}
				return err
			}
			if path == filepath.Join(l.dir, "s", "m") && !memory || e.IsDir() && (e.Name() == "rootfs" || e.Name() == "netns") {
				return filepath.SkipDir
			}
			if !e.Type().IsRegular() || strings.HasSuffix(path, "disk.ext4") {
				return nil
			}
			files++
			b, err := os.ReadFile(path)
			if bytes.Contains(b, []byte(secret)) {
				t.Errorf("%s: %s has the value", when, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return files
	}
	if n := search("while it lives", false); n < 10 {
		t.Errorf("only %d files were searched", n)
	}
	exec := func() {
		t.Helper()
		var out, bad bytes.Buffer
		code, err := l.driver.Exec(t.Context(), r.id, runtimes.Exec{Command: []string{"/hello", "env"}, Stdout: &out, Stderr: &bad})
		if err != nil || code != 0 || !strings.Contains(out.String(), "PASSWORD="+secret+"\n") {
			t.Errorf("a command's environment: code %d, %v, %s", code, err, out.String()+bad.String())
		}
	}
	exec()
	l.close()
	l.open()
	exec()
	for path, want := range map[string]fs.FileMode{"s/m": 0o711, "s/m/v": 0o700, "s/m/x": 0o700} {
		if info, err := os.Stat(filepath.Join(l.dir, path)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	configs, err := filepath.Glob(filepath.Join(l.dir, "s/m/c/*/*/*/config.json"))
	if err != nil || len(configs) != 1 {
		t.Fatalf("bundles: %q, %v", configs, err)
	}
	if info, err := os.Stat(configs[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the bundle's specification: %v, %v", info.Mode(), err)
	}
	// Other users of the machine cannot reach what containers have mounted.
	runs, err := filepath.Glob(filepath.Join(l.dir, "s/t/*"))
	if err != nil || len(runs) != 1 {
		t.Fatalf("run folders: %q, %v", runs, err)
	}
	if info, err := os.Stat(runs[0]); err != nil || info.Mode().Perm() != 0o710 {
		t.Errorf("the run folder: %v, %v", info.Mode(), err)
	}
	if err := l.driver.Delete(t.Context(), r.id); err != nil {
		t.Fatal(err)
	}
	search("when it has gone", true)
}
