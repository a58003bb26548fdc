package isolation_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"penstock/test/penstocktest"
)

// vaultManifest is an app with a secret in a variable and both in files.
func vaultManifest(variable, file string) string {
	return fmt.Sprintf(`
name: vault
properties:
  configuration:
    ingress: {external: true, targetPort: 8080, allowInsecure: true}
    secrets: [{name: password, value: %s}, {name: key, value: %s}]
  template:
    containers:
      - name: hello
        image: hello:1
        env: [{name: PASSWORD, secretRef: password}]
        resources: {cpu: 0.25, memory: 0.5Gi}
        volumeMounts: [{volumeName: keys, mountPath: /keys}, {volumeName: some, mountPath: /etc/tls}]
    volumes:
      - {name: keys, storageType: Secret}
      - {name: some, storageType: Secret, secrets: [{secretRef: key, path: deep/key.pem}]}
    scale: {minReplicas: 1, maxReplicas: 1}
`, variable, file)
}

// traces looks for values that must be nowhere.
type traces struct {
	*testing.T
	m      *penstocktest.Machine
	values [][]byte
}

func newTraces(t *testing.T, m *penstocktest.Machine, values ...string) *traces {
	all := &traces{T: t, m: m}
	for _, v := range values {
		all.values = append(all.values, []byte(v), []byte(base64.StdEncoding.EncodeToString([]byte(v))))
	}
	return all
}

// in is how many of the values some text has.
func (s *traces) in(text []byte) (n int) {
	for _, value := range s.values {
		if bytes.Contains(text, value) {
			n++
		}
	}
	return n
}

func (s *traces) absent(where string, text []byte) {
	s.Helper()
	if n := s.in(text); n > 0 {
		s.Errorf("%s has %d of the values", where, n)
	}
}

// file searches one piece by piece, without its holes.
func (s *traces) file(path string) (found int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	const piece, overlap = 1 << 20, 1 << 10
	b := make([]byte, piece)
	for at := int64(0); ; {
		data, err := f.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return found, nil
		}
		if err != nil { // a file system that knows no holes
			data = at
		}
		n, err := f.ReadAt(b, data)
		found += s.in(b[:n])
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return found, err
		}
		at = data + piece - overlap
	}
}

// folder searches all files below a folder but for one, and returns those that have a value.
func (s *traces) folder(dir, except string) (files int, found []string) {
	s.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // it has gone meanwhile
			return nil
		case err != nil:
			return err
		case e.IsDir():
			// What is mounted below the run folder are the files of containers, which see their own secrets, and network
			// namespaces.
			if name := e.Name(); path == except || strings.HasPrefix(dir, "/run/") && (name == "rootfs" || name == "volumes" || name == "netns") {
				return fs.SkipDir
			}
			return nil
		case !e.Type().IsRegular():
			return nil
		}
		n, err := s.file(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if n > 0 {
			found = append(found, path)
		}
		files++
		return err
	})
	if err != nil {
		s.Fatal(err)
	}
	return files, found
}

// memory is where the engine holds what it has to.
func (s *traces) memory() string {
	return filepath.Join("/run/penstock", s.m.Status.Instance, "c", "m")
}

// machine searches the data folder, the run folder but for memory, the words of all processes, and the variables of the
// server's own and its shims.
func (s *traces) machine() {
	s.Helper()
	files, kept := s.folder(s.m.Data, "")
	_, left := s.folder(filepath.Join("/run/penstock", s.m.Status.Instance), s.memory())
	for _, path := range append(kept, left...) {
		s.Errorf("%s has a value", path)
	}
	if files < 20 {
		s.Errorf("searched only %d files", files)
	}
	temporary, err := filepath.Glob(filepath.Join(os.TempDir(), "runc-process*"))
	if err != nil || len(temporary) > 0 {
		s.Errorf("runc's descriptions of commands are left: %q, %v", temporary, err)
	}
	processes, own := s.processes()
	if alive(s.m) && (processes < 5 || own < 3) {
		s.Errorf("searched only %d processes, %d of them the server's", processes, own)
	}
}

func (s *traces) processes() (all, own int) {
	s.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		s.Fatal(err)
	}
	for _, path := range lines {
		line, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		all++
		s.absent("the command line "+strings.ReplaceAll(string(line), "\x00", " "), line)
		if !bytes.Contains(line, []byte("penstock.e2e")) && !bytes.Contains(line, []byte("containerd-shim")) {
			continue
		}
		variables, err := os.ReadFile(filepath.Join(filepath.Dir(path), "environ"))
		if err != nil {
			continue
		}
		own++
		s.absent("the environment of "+strings.ReplaceAll(string(line), "\x00", " "), variables)
	}
	return all, own
}

// alive says whether the server runs.
func alive(m *penstocktest.Machine) bool {
	b, err := os.ReadFile(filepath.Join("/run/penstock", m.Status.Instance, "pid"))
	if err != nil {
		return false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	return err == nil && syscall.Kill(pid, 0) == nil
}

// What is secret reaches a container, by variable and by file, and nothing else: no disk, no list of processes, no
// answer and no log has a value of it, not while the replica lives, and not after a change, a restart, a command in the
// container, a backup, the death of control and the deletion of all.
func TestSecretsLeaveNoTrace(t *testing.T) {
	m := penstocktest.Boot(t)
	m.Image(t, "hello")
	const account = "uzieHeQu3ohs6aezahNg"
	values := func(i int) (variable, file string) {
		return fmt.Sprintf("ohX1%dvariableEeGh7w", i), fmt.Sprintf("Aev8%dfileooZ4ahchai", i)
	}
	var all []string
	for i := range 4 {
		variable, file := values(i)
		all = append(all, variable, file)
	}
	s := newTraces(t, m, append(all, account)...)
	apply := func(i int) { m.Apply(t, vaultManifest(values(i))) }
	has := func(when, path, want string) {
		t.Helper()
		from := time.Now()
		penstocktest.Until(t, time.Minute, when+": "+path+" is another", func() bool {
			status, answer := m.Ask(t, http.MethodGet, "vault", path, "")
			return status == http.StatusOK && strings.Contains(answer, want)
		})
		t.Logf("%-28s %-28s %s", when, path, time.Since(from).Round(time.Millisecond))
	}
	const inVariable, inFile, inPath = "/env", "/file?path=/keys/key", "/file?path=/etc/tls/deep/key.pem"

	apply(0)
	before := m.Processes(t)
	variable, file := values(0)
	has("at first", inVariable, "PASSWORD="+variable+"\n")
	has("at first", inFile, file)
	has("at first", inPath, file)
	if _, found := s.folder(s.memory(), ""); len(found) < 2 {
		t.Errorf("the engine's memory has the values in %q; the search finds nothing", found)
	}
	s.machine()
	if out := m.Must(t, "app", "exec", "vault", "--", "/hello", "env"); !strings.Contains(out, "PASSWORD="+variable+"\n") {
		t.Errorf("a command has the variables\n%s", out)
	}

	apply(1)
	_, file = values(1)
	has("changed", inFile, file)
	has("changed", inPath, file)
	has("changed", inVariable, "PASSWORD="+variable+"\n") // until it starts again
	if control := m.Role(t, "control"); control == 0 || syscall.Kill(control, syscall.SIGKILL) != nil {
		t.Fatal("control cannot be killed")
	}
	penstocktest.Until(t, time.Minute, "control is back", func() bool {
		_, _, code := m.Run(t, "app", "list")
		return code == 0
	})
	apply(2)
	_, file = values(2)
	has("after control was killed", inFile, file)
	if after := m.Processes(t); len(after) != 1 || fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("processes before %v, after %v", before, after)
	}
	s.machine()

	revision := strings.Fields(strings.Split(m.Must(t, "revision", "list", "vault"), "\n")[1])[0]
	m.Must(t, "revision", "restart", "vault", revision)
	variable, _ = values(2)
	has("restarted", inVariable, "PASSWORD="+variable+"\n")
	m.Must(t, "env", "storage", "set", "default", "share", "--access-mode", "ReadOnly", "--azure-file-account-name", "models",
		"--azure-file-share-name", "chat", "--azure-file-account-key-file", m.File(t, account))
	m.Must(t, "env", "storage", "set", "default", "share", "--access-mode", "ReadOnly", "--azure-file-account-name", "models",
		"--azure-file-share-name", "chat")
	backup := filepath.Join(t.TempDir(), "backup.tar")
	m.Must(t, "backup", backup)
	if n, err := s.file(backup); n > 0 || err != nil {
		t.Errorf("the backup has %d of the values, %v", n, err)
	}
	for _, command := range [][]string{
		{"app", "list", "-o", "json"}, {"app", "show", "vault", "-o", "json"}, {"revision", "list", "vault", "-o", "json"},
		{"replica", "list", "vault", "-o", "json"}, {"app", "events", "vault", "-o", "json"}, {"app", "logs", "vault"},
		{"app", "requests", "vault"}, {"env", "storage", "list", "default", "-o", "json"}, {"top", "--once", "-o", "json"},
	} {
		s.absent("penstock "+strings.Join(command, " "), []byte(m.Must(t, command...)))
	}
	// A start that fails says why, and not with what.
	variable, file = values(3)
	if _, said, code := m.Run(t, "up", "-f", m.File(t, strings.Replace(vaultManifest(variable, file), "image: hello:1", "image: hello:1\n        command: [/nix]", 1))); code != 1 {
		t.Errorf("a program that is not there: exit %d", code)
	} else {
		s.absent("the answer to a start that fails", []byte(said))
	}
	s.machine()

	m.Must(t, "app", "delete", "vault")
	s.machine()
	if _, found := s.folder(s.memory(), ""); len(found) > 0 {
		t.Errorf("the engine's memory has values of an app that was deleted: %q", found)
	}
	m.Must(t, "down")
	s.machine()
}
