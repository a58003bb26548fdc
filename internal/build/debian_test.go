//go:build linux

package build_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"penstock/internal/build"
)

// standIn puts a program in the place of mmdebstrap that hands over the trees of its folder: system.tar, or with
// packages more.tar, after it has unpacked what it is given to begin with; and it tells the versions in the file
// simulated. The real one needs a network; the tests with real containers have it.
type standIn struct{ dir string }

func newStandIn(t *testing.T) *standIn {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("packages are installed as root")
	}
	dir, err := os.MkdirTemp("", "penstock-tool-") // others than root can walk through it, as not through t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := &standIn{dir}
	script := `#!/bin/bash
set -eu
here=` + s.dir + `
echo "$*" >> $here/calls
pwd > $here/calls.last
tree=system.tar
for arg; do
  case $arg in
  --simulate) cat $here/simulated >&2; exit 0 ;;
  --setup-hook=*) tree=more.tar; mkdir tree; sh -c "${arg#--setup-hook=}" exec tree; ls tree >/dev/null ;;
  esac
done
if [ -e $here/fetch ]; then
  echo "I: downloading packages with apt..." >&2
  echo "0 upgraded, 2 newly installed, 0 to remove and 0 not upgraded." >&2
  for url in $(cat $here/fetch); do env -u no_proxy -u NO_PROXY curl -sSf -o "${url##*/}" "$url" >&2; done
  echo "I: extracting archives..." >&2
  echo "Unpacking libc6:amd64 (2.36-9) ..." >&2
  echo "Setting up libc6:amd64 (2.36-9) ..." >&2
fi
if [ -e $here/fail ]; then echo "E: Unable to locate package nginxx" >&2; exit 25; fi
[ "$(id -u)" = 0 ] && [ -z "${SECRET:-}" ] && [ $$ = 1 ] && ! [ -w $here ]
cat $here/$tree
`
	if err := os.WriteFile(filepath.Join(s.dir, "mmdebstrap"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"calls", "calls.last"} {
		s.write(t, name, nil)
		if err := os.Chmod(filepath.Join(s.dir, name), 0o666); err != nil { // the program is another user to the machine
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", s.dir+":"+os.Getenv("PATH"))
	t.Setenv("SECRET", "not for the packages' scripts")
	return s
}

func (s *standIn) calls(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, "calls"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(b), "\n")
}

func (s *standIn) write(t *testing.T, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), content, 0o644); err != nil {
		t.Fatal(err)
	}
}

func status(versions ...string) string {
	var b strings.Builder
	for i := 0; i < len(versions); i += 2 {
		fmt.Fprintf(&b, "Package: %s\nStatus: install ok installed\nVersion: %s\nDescription: x\n y: z\n\n", versions[i], versions[i+1])
	}
	return b.String()
}

func tarOf(t testing.TB, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		content := h.PAXRecords["content"]
		h.PAXRecords, h.Size = nil, int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func file(name, content string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, PAXRecords: map[string]string{"content": content}}
}

func folder(name string) tar.Header {
	return tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}
}

// system is a small tree as the tool writes it.
func system() []tar.Header {
	return []tar.Header{
		folder("./dev/"), {Typeflag: tar.TypeChar, Name: "./dev/null", Mode: 0o666},
		folder("./"), folder("./etc/"), file("./etc/shadow", "root:*:20781:0:99999:7:::\n"), file("./etc/machine-id", "7"), file("./etc/passwd-", "old"),
		folder("./usr/"), {Typeflag: tar.TypeReg, Name: "./usr/su", Mode: 0o4755}, {Typeflag: tar.TypeLink, Name: "./usr/su2", Linkname: "./usr/su"},
		{Typeflag: tar.TypeSymlink, Name: "./bin", Linkname: "usr/bin", Mode: 0o777},
		folder("./var/"), folder("./var/log/"), file("./var/log/dpkg.log", "today"),
		folder("./var/lib/"), folder("./var/lib/dpkg/"), file("./var/lib/dpkg/status", status("libc6", "2.36")), file("./var/lib/gone", "x"),
	}
}

func TestDebianLayers(t *testing.T) {
	tool := newStandIn(t)
	s := newServer(t)
	p := newProject(t, map[string]string{"image.yaml": "base: {debian: {suite: bookworm, packages: [nginx]}}\ncmd: [nginx]\n"})
	tool.write(t, "system.tar", tarOf(t, system()...))
	more := system()[:len(system())-2]
	more = append(more, file("./var/lib/dpkg/status", status("libc6", "2.36", "nginx", "1.22")), file("./usr/nginx", "server"))
	tool.write(t, "more.tar", tarOf(t, more...))

	first := p.build(t, s)
	want := [][]string{
		{
			"dev/ 755 0:0", "etc/ 755 0:0", "etc/shadow 644 0:0 21", "usr/ 755 0:0", "usr/su 4755 0:0 0", "usr/su2 0 0:0", "bin 777 0:0 -> usr/bin",
			"var/ 755 0:0", "var/log/ 755 0:0", "var/lib/ 755 0:0", "var/lib/dpkg/ 755 0:0", "var/lib/dpkg/status 644 0:0 80", "var/lib/gone 644 0:0 1",
		},
		{"var/lib/dpkg/status 644 0:0 160", "usr/nginx 644 0:0 6", "var/lib/.wh.gone 644 0:0 0"},
	}
	if diff := cmp.Diff(want, pull(t, s, "app:1")); diff != "" {
		t.Errorf("layers (-want +got):\n%s", diff)
	}

	t.Run("is not made again", func(t *testing.T) {
		before := tool.calls(t)
		if again := p.build(t, s); again.Hashed != 0 || again.Moved != 0 || again.Digest != first.Digest || tool.calls(t) != before {
			t.Errorf("got %+v after %d more calls of the tool", again, tool.calls(t)-before)
		}
	})
	t.Run("is the same from the same packages", func(t *testing.T) {
		elsewhere := &project{dir: p.dir, cache: t.TempDir()}
		if again := elsewhere.build(t, s); again.Hashed == 0 || again.Digest != first.Digest {
			t.Errorf("got %+v, want the digest %s", again, first.Digest)
		}
	})
	opts := p.options(s)
	opts.Refresh = true
	t.Run("is kept when the archive has nothing newer", func(t *testing.T) {
		only := newProject(t, map[string]string{"image.yaml": "base: {debian: {suite: bookworm}}\ncmd: [sh]\n"})
		opts := only.options(s)
		opts.Refresh = true
		tool.write(t, "simulated", []byte("Inst libc6 (2.36 Debian:12/oldstable [amd64])\nConf libc6 (2.36 Debian:12/oldstable [amd64])\n"))
		only.build(t, s)
		before := tool.calls(t)
		again, err := build.Build(t.Context(), opts)
		if err != nil || again.Hashed != 0 || tool.calls(t) != before+1 {
			t.Errorf("got %+v, %v after %d calls of the tool, want one that asks", again, err, tool.calls(t)-before)
		}
	})
	t.Run("is made again when the archive has a newer one", func(t *testing.T) {
		tool.write(t, "simulated", []byte("Inst libc6 (2.36 Debian:12/oldstable [amd64])\nInst nginx [1.22] (1.23 Debian:12/oldstable [amd64])\n"))
		more[len(more)-2] = file("./var/lib/dpkg/status", status("libc6", "2.36", "nginx", "1.23"))
		tool.write(t, "more.tar", tarOf(t, more...))
		again, err := build.Build(t.Context(), opts)
		if err != nil || again.Hashed == 0 || again.Layers[1].Digest == first.Layers[1].Digest {
			t.Errorf("got %+v, %v, want a new layer of packages", again, err)
		}
	})
	t.Run("says what the tool said when it fails", func(t *testing.T) {
		tool.write(t, "fail", nil)
		elsewhere := &project{dir: p.dir, cache: t.TempDir()}
		if _, err := build.Build(t.Context(), elsewhere.options(s)); err == nil || !strings.Contains(err.Error(), "Unable to locate package nginxx") {
			t.Errorf("got %v", err)
		}
		dir, err := os.ReadFile(filepath.Join(tool.dir, "calls.last"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(strings.TrimSpace(string(dir))); !os.IsNotExist(err) || len(dir) < 2 {
			t.Errorf("its folder %q is left: %v", dir, err)
		}
	})
}

// Packages are downloaded once, whatever list they are part of, and what the tool does is reported.
func TestDebianPackagesAreDownloadedOnce(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is missing")
	}
	tool := newStandIn(t)
	s := newServer(t)
	var mu sync.Mutex
	asked := map[string]int{}
	archive := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked[r.URL.Path]++
		mu.Unlock()
		if r.Header.Get("Proxy-Authorization") != "" {
			t.Error("the archive gets the proxy's password")
		}
		switch r.URL.Path {
		case "/gone.deb":
			http.NotFound(w, r)
		case "/half.deb":
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "half")
		default:
			w.Header().Set("Content-Length", strconv.Itoa(3<<20))
			_, _ = w.Write(bytes.Repeat([]byte("p"), 3<<20))
		}
	}))
	t.Cleanup(archive.Close)
	tool.write(t, "system.tar", tarOf(t, system()...))
	tool.write(t, "more.tar", tarOf(t, append(system(), file("./usr/nginx", "server"))...))
	cache := t.TempDir()
	try := func(list string, urls ...string) (details []string, err error) {
		t.Helper()
		p := newProject(t, map[string]string{"image.yaml": "base: {debian: {suite: bookworm, packages: " + list + "}}\ncmd: [sh]\n"})
		tool.write(t, "fetch", []byte(archive.URL+strings.Join(urls, " "+archive.URL)))
		opts := (&project{dir: p.dir, cache: cache}).options(s)
		opts.Progress = func(now build.Progress) {
			mu.Lock()
			defer mu.Unlock()
			details = append(details, now.Detail)
		}
		_, err = build.Build(t.Context(), opts)
		return details, err
	}
	count := func(path string) int {
		mu.Lock()
		defer mu.Unlock()
		return asked[path]
	}
	has := func(details []string, wants ...string) {
		t.Helper()
		for _, want := range wants {
			if !slices.Contains(details, want) {
				t.Errorf("got %q, want %q", details, want)
			}
		}
	}

	details, err := try("[]", "/Packages", "/pool/a_1.deb", "/pool/b_1.deb")
	if err != nil {
		t.Fatal(err)
	}
	has(details, "downloading", "downloading, 1 of 2 packages, 3.0 MiB downloaded", "extracting, 2 of 2 packages, 6.0 MiB downloaded",
		"unpacking libc6 (1 of 2), 6.0 MiB downloaded", "setting up libc6 (1 of 2), 6.0 MiB downloaded")
	details, err = try("[nginx]", "/Packages", "/pool/a_1.deb", "/pool/c_1.deb")
	if err != nil {
		t.Fatal(err)
	}
	has(details, "downloading, 1 of 2 packages, 0.0 MiB downloaded, 1 from the cache", "extracting, 2 of 2 packages, 3.0 MiB downloaded, 1 from the cache")
	if count("/pool/a_1.deb") != 1 || count("/pool/c_1.deb") != 1 || count("/Packages") != 2 {
		t.Errorf("got these requests: %v, want each package once and lists each time", asked)
	}
	// What has not come whole is not kept.
	for _, bad := range []string{"/gone.deb", "/half.deb"} {
		for range 2 {
			if _, err := try("[redis]", bad); err == nil || !strings.Contains(err.Error(), "curl") {
				t.Errorf("%s: got %v", bad, err)
			}
		}
		if count(bad) != 2 {
			t.Errorf("%s: got %d requests, want one for each try", bad, count(bad))
		}
	}
	// After a failure no kept package is trusted that was used.
	if _, err := try("[redis]", "/pool/a_1.deb", "/gone.deb"); err == nil || count("/pool/a_1.deb") != 1 {
		t.Errorf("got %v, %d requests for a package that was kept", err, count("/pool/a_1.deb"))
	}
	if _, err := try("[redis]", "/pool/a_1.deb"); err != nil || count("/pool/a_1.deb") != 2 {
		t.Errorf("got %v, %d requests, want a second one", err, count("/pool/a_1.deb"))
	}
}

// What a tree must not have, whoever made it.
func TestHostileTreesAreRefused(t *testing.T) {
	tool := newStandIn(t)
	s := newServer(t)
	p := newProject(t, map[string]string{"image.yaml": "base: {debian: {suite: bookworm}}\ncmd: [sh]\n"})
	tests := map[string]struct {
		entry tar.Header
		want  string
	}{
		"a path that climbs":      {file("./etc/../../etc/passwd", "x"), `want a path inside the image, got "./etc/../../etc/passwd"`},
		"an absolute path":        {file("/etc/passwd", "x"), `want a path inside the image, got "/etc/passwd"`},
		"a whiteout":              {file("./etc/.wh.passwd", "x"), "deletes files in an image"},
		"a folder of that name":   {file("./.wh..wh..opq/x", "x"), "deletes files in an image"},
		"a device":                {tar.Header{Typeflag: tar.TypeBlock, Name: "./disk", Mode: 0o666}, "disk: want files, folders and links, got a device"},
		"a named pipe":            {tar.Header{Typeflag: tar.TypeFifo, Name: "./pipe", Mode: 0o666}, "got a named pipe"},
		"a hard link out":         {tar.Header{Typeflag: tar.TypeLink, Name: "./link", Linkname: "../../etc/shadow"}, "hard link: want a path inside"},
		"a hard link to nothing":  {tar.Header{Typeflag: tar.TypeLink, Name: "./link", Linkname: "later"}, `want a hard link to a file that comes before it, got one to "later"`},
		"an owner nobody can map": {tar.Header{Typeflag: tar.TypeReg, Name: "./x", Uid: 1 << 40}, "want owners from 0 to"},
		"a file twice":            {file("./etc/shadow", "root::::::::"), "etc/shadow: it occurs twice"},
	}
	for what, tt := range tests {
		t.Run(what, func(t *testing.T) {
			tool.write(t, "system.tar", tarOf(t, append(system(), tt.entry)...))
			if _, err := build.Build(t.Context(), p.options(s)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
	t.Run("half a tar", func(t *testing.T) {
		whole := tarOf(t, system()...)
		tool.write(t, "system.tar", whole[:len(whole)/2-100])
		if _, err := build.Build(t.Context(), p.options(s)); err == nil || !strings.Contains(err.Error(), "unexpected EOF") {
			t.Errorf("got %v", err)
		}
	})
}

func TestDebianWithoutItsTool(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	p := newProject(t, map[string]string{"image.yaml": "base: {debian: {suite: bookworm}}\ncmd: [sh]\n"})
	if _, err := build.Build(t.Context(), p.options(newServer(t))); err == nil || !strings.Contains(err.Error(), "apt-get install mmdebstrap") {
		t.Errorf("got %v, want how to get the tool", err)
	}
}
