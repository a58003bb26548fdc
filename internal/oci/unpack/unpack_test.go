package unpack_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"penstock/internal/oci/unpack"
)

// blob is a store with one blob, which is generated while it is read.
type blob struct {
	size int64
	open func() io.Reader
}

func (b blob) ReaderAt(context.Context, ocispec.Descriptor) (content.ReaderAt, error) {
	return &reader{in: b.open(), size: b.size}, nil
}

// reader supports only sequential reads, which is how a layer is read.
type reader struct {
	in   io.Reader
	at   int64
	size int64
}

func (r *reader) ReadAt(p []byte, off int64) (int, error) {
	if off != r.at {
		return 0, fmt.Errorf("read at %d after %d", off, r.at)
	}
	n, err := io.ReadFull(r.in, p[:min(int64(len(p)), r.size-off)])
	r.at += int64(n)
	if r.at == r.size || err == io.ErrUnexpectedEOF {
		err = io.EOF
	}
	return n, err
}

func (r *reader) Size() int64  { return r.size }
func (r *reader) Close() error { return nil }

func whole(b []byte) blob {
	return blob{int64(len(b)), func() io.Reader { return bytes.NewReader(b) }}
}

type entry struct {
	tar.Header
	body string
}

// pack returns an archive of entries.
func pack(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if e.Size == 0 {
			e.Size = int64(len(e.body))
		}
		if e.Mode == 0 {
			e.Mode = 0o644
		}
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// header returns the header of one entry, without its content and the end of the archive.
func header(t testing.TB, h tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := tar.NewWriter(&b).WriteHeader(&h); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// forever is an endless reader that repeats its bytes.
type forever struct {
	of []byte
	at int
}

func (f *forever) Read(p []byte) (int, error) {
	for n := range p {
		p[n] = f.of[f.at]
		f.at = (f.at + 1) % len(f.of)
	}
	return len(p), nil
}

func gzipped(t testing.TB, r io.Reader) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.Copy(w, r); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zstded(t testing.TB, b []byte, opts ...zstd.EOption) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(b, nil)
}

// box is a folder to unpack to, inside a folder that must not change.
type box struct{ outer, lower, upper string }

func newBox(t testing.TB) box {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("owners of files need root")
	}
	outer := t.TempDir()
	b := box{outer, filepath.Join(outer, "lower"), filepath.Join(outer, "upper")}
	for _, dir := range []string{b.lower, b.upper, filepath.Join(outer, "upper-beside")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(outer, "secret"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b box) mounts() []mount.Mount {
	return []mount.Mount{{Type: "overlay", Options: []string{"lowerdir=" + b.lower, "upperdir=" + b.upper}}}
}

// files lists the content of a folder with the types of the files.
func files(t testing.TB, dir string) (list []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, err := filepath.Rel(dir, path)
		list = append(list, fmt.Sprintf("%s %s", name, e.Type()))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// untouched fails if anything outside the unpacked folder has changed.
func (b box) untouched(t testing.TB) {
	t.Helper()
	secret, err := os.ReadFile(filepath.Join(b.outer, "secret"))
	var s unix.Stat_t
	if serr := unix.Stat(filepath.Join(b.outer, "secret"), &s); err != nil || serr != nil || string(secret) != "secret" || s.Nlink != 1 || s.Mode&0o777 != 0o600 {
		t.Errorf("the file outside is %q, %v, with %d links and mode %o", secret, err, s.Nlink, s.Mode)
	}
	entries, err := os.ReadDir(b.outer)
	if err != nil || len(entries) != 4 {
		t.Errorf("beside the folder: %v, %v", entries, err)
	}
	for _, dir := range []string{b.lower, filepath.Join(b.outer, "upper-beside")} {
		if got := files(t, dir); got != nil {
			t.Errorf("%s: got %v, want nothing", dir, got)
		}
	}
}

const limit = 1 << 20

var limits = unpack.Limits{Bytes: limit, Entries: 1000}

// TestHostileLayers unpacks untrusted layers. Each ends soon with an error that says what is wrong, or unpacks to what
// is listed. Nothing outside the folder is touched.
func TestHostileLayers(t *testing.T) {
	up := strings.Repeat("../", 30)
	plain := func(entries ...entry) func(testing.TB) blob {
		return func(t testing.TB) blob { return whole(pack(t, entries...)) }
	}
	named := func(name string) entry { return entry{Header: tar.Header{Name: name}, body: "x"} }
	folder := func(name string) entry {
		return entry{Header: tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o700}}
	}
	link := func(typ byte, name, to string) entry {
		return entry{Header: tar.Header{Name: name, Linkname: to, Typeflag: typ}}
	}
	device := func(name string, typ byte) entry {
		return entry{Header: tar.Header{Name: name, Typeflag: typ, Devmajor: 8, Devminor: 0, Mode: 0o666}}
	}
	attribute := func(name, value string) entry {
		return entry{Header: tar.Header{Name: "dir", Typeflag: tar.TypeDir, Mode: 0o755, Format: tar.FormatPAX, PAXRecords: map[string]string{"SCHILY.xattr." + name: value}}}
	}
	endless := func(of []byte, size int64) func(testing.TB) blob {
		return func(testing.TB) blob { return blob{size, func() io.Reader { return &forever{of: of} }} }
	}
	tests := map[string]struct {
		layer func(testing.TB) blob
		typ   string
		says  string   // part of the error; empty if there is none
		files []string // expected files
	}{
		"a name that climbs": {plain(named(up+"stolen"), named("a/../../../b")), "", "", []string{"b ----------", "stolen ----------"}},
		"an absolute name":   {plain(named("/secret")), "", "", []string{"secret ----------"}},
		"the folder itself":  {plain(folder("."), folder("/"), folder("..")), "", "", nil},
		"a link out, and a file through it": {plain(link(tar.TypeSymlink, "door", up+"tmp"), named("door/x"), link(tar.TypeSymlink, "abs", "/"), named("abs/y")), "", "",
			[]string{"abs L---------", "door L---------", "tmp d---------", "tmp/x ----------", "y ----------"}},
		"a link to the folder beside":   {plain(link(tar.TypeSymlink, "door", "../upper-beside"), named("door/x")), "", "", []string{"door L---------", "upper-beside d---------", "upper-beside/x ----------"}},
		"links in a circle":             {plain(link(tar.TypeSymlink, "a", "b"), link(tar.TypeSymlink, "b", "a"), named("a/x")), "", "too many", []string{"a L---------", "b L---------"}},
		"a hard link out":               {plain(link(tar.TypeLink, "stolen", up+"secret")), "", "no such file", nil},
		"a hard link to the parent":     {plain(link(tar.TypeLink, "stolen", "..")), "", "not permitted", nil},
		"a hard link through a link":    {plain(link(tar.TypeSymlink, "door", "/.."), link(tar.TypeLink, "stolen", "door/../secret")), "", "no such file", []string{"door L---------"}},
		"devices":                       {plain(device("sda", tar.TypeBlock), device("mem", tar.TypeChar), named("after")), "", "", []string{"after ----------"}},
		"a kernel's whiteout":           {plain(entry{Header: tar.Header{Name: "gone", Typeflag: tar.TypeChar}}), "", "", nil},
		"a whiteout of the parent":      {plain(named(".wh..")), "", "invalid whiteout", nil},
		"a whiteout that climbs":        {plain(named(up + ".wh.secret")), "", "", []string{"secret Dc---------"}},
		"an overlay's own attribute":    {plain(attribute("trusted.overlay.redirect", "/etc")), "", `attribute "trusted.overlay.redirect"`, nil},
		"an overlay's user attribute":   {plain(attribute("user.overlay.opaque", "y")), "", `attribute "user.overlay.opaque"`, nil},
		"the same name twice":           {plain(named("a"), link(tar.TypeSymlink, "a", "/etc"), entry{Header: tar.Header{Name: "a"}, body: "last"}), "", "", []string{"a ----------"}},
		"a file where a folder was":     {plain(named("a/b"), named("a"), named("a/b")), "", "not a directory", []string{"a ----------"}},
		"a name without end":            {plain(named(strings.Repeat("a/", 3000) + "b")), "", "at most 4096 bytes", nil},
		"folders without end":           {plain(named(strings.Repeat("a/", 300) + "b")), "", "at most 256 folders", nil},
		"a file larger than all":        {plain(entry{Header: tar.Header{Name: "small"}, body: "x"}, entry{Header: tar.Header{Name: "large"}, body: strings.Repeat("x", limit)}), "", fmt.Sprintf("it has %d bytes; of the %d that the image may have unpacked, %d are left", limit, limit, limit-1), []string{"small ----------"}},
		"files without number":          {endless(header(t, tar.Header{Name: "empty"}), 1<<40), "", "more than 1000 files", []string{"empty ----------"}},
		"an archive without end":        {endless(make([]byte, 512), 1<<40), "", "it goes on after", nil},
		"a file that ends early":        {func(t testing.TB) blob { return whole(header(t, tar.Header{Name: "short", Size: 1000, Mode: 0o644})) }, "", "to its end", []string{"short ----------"}},
		"no archive":                    {func(testing.TB) blob { return whole(bytes.Repeat([]byte("layer"), 1000)) }, "", "want a tar archive", nil},
		"an empty blob":                 {func(testing.TB) blob { return whole(nil) }, "", "", nil},
		"a media type that is no layer": {plain(named("x")), "text/html", `got "text/html"`, nil},
		"a layer that is encrypted":     {plain(named("x")), ocispec.MediaTypeImageLayerGzip + "+encrypted", "+encrypted", nil},
		"a media type that lies":        {plain(named("x")), ocispec.MediaTypeImageLayerZstd, "", []string{"x ----------"}},
		"gzip that ends early": {func(t testing.TB) blob {
			b := gzipped(t, bytes.NewReader(pack(t, named("x"))))
			return whole(b[:len(b)-9])
		}, "", "unexpected EOF", []string{"x ----------"}},
		"a gzip bomb in a file": {func(t testing.TB) blob {
			return whole(gzipped(t, io.MultiReader(bytes.NewReader(header(t, tar.Header{Name: "bomb", Size: 100 << 30})), io.LimitReader(&forever{of: make([]byte, 1<<16)}, 32<<20))))
		}, "", "it has 107374182400 bytes", nil},
		"a gzip bomb behind the archive": {func(t testing.TB) blob {
			return whole(gzipped(t, io.MultiReader(bytes.NewReader(pack(t, named("x"))), io.LimitReader(&forever{of: make([]byte, 1<<16)}, 32<<20))))
		}, "", "it goes on after", []string{"x ----------"}},
		"a zstd bomb behind the archive": {func(t testing.TB) blob { return whole(zstded(t, append(pack(t, named("x")), make([]byte, 32<<20)...))) }, "", "it goes on after", []string{"x ----------"}},
		"zstd with a window of 512 MiB":  {func(t testing.TB) blob { return whole(zstdWindow()) }, "", "window size exceeded", nil},
		"a sparse file of 100 GB":        {func(t testing.TB) blob { return whole(sparse(t, 100<<30)) }, "", "it has 107374182400 bytes", nil},
		"a good layer in gzip":           {func(t testing.TB) blob { return whole(gzipped(t, bytes.NewReader(pack(t, named("x"))))) }, ocispec.MediaTypeImageLayerGzip, "", []string{"x ----------"}},
		"a good layer in zstd":           {func(t testing.TB) blob { return whole(zstded(t, pack(t, named("x")))) }, ocispec.MediaTypeImageLayerZstd, "", []string{"x ----------"}},
	}
	for what, tt := range tests {
		t.Run(what, func(t *testing.T) {
			b := newBox(t)
			if tt.typ == "" {
				tt.typ = ocispec.MediaTypeImageLayer
			}
			began := time.Now()
			_, err := unpack.New(tt.layer(t), limits).Apply(t.Context(), ocispec.Descriptor{MediaType: tt.typ}, b.mounts())
			if tt.says == "" && err != nil || tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)) {
				t.Errorf("got %v, want an error that says %q", err, tt.says)
			}
			if took := time.Since(began); took > time.Minute {
				t.Errorf("it took %v", took)
			}
			if got := files(t, b.upper); strings.Join(got, "\n") != strings.Join(tt.files, "\n") {
				t.Errorf("files: got %q, want %q", got, tt.files)
			}
			b.untouched(t)
		})
	}
}

// zstdWindow returns the head of a frame that needs 512 MiB of memory: RFC 8878 section 3.1.1.1.
func zstdWindow() []byte {
	return append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, (29 - 10) << 3}, make([]byte, 64)...)
}

// sparse returns a file of holes in GNU tar's PAX format 1.0.
func sparse(t testing.TB, size int64) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	// archive/tar cannot write sparse files, so the records are written as a separate header.
	var records strings.Builder
	for _, r := range [][2]string{{"GNU.sparse.major", "1"}, {"GNU.sparse.minor", "0"}, {"GNU.sparse.name", "holes"}, {"GNU.sparse.realsize", fmt.Sprint(size)}} {
		line := fmt.Sprintf(" %s=%s\n", r[0], r[1])
		n := len(line) + 2
		records.WriteString(fmt.Sprintf("%d%s", n, line))
	}
	b.Write(raw("PaxHeaders/holes", 'x', int64(len(records.String()))))
	b.WriteString(records.String() + strings.Repeat("\x00", 512-len(records.String())%512))
	b.Write(raw("GNUSparseFile.0/holes", '0', 512))
	b.WriteString("0\n" + strings.Repeat("\x00", 510))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	b.Write(make([]byte, 1024))
	return b.Bytes()
}

// raw returns the bytes of a tar header.
func raw(name string, typ byte, size int64) []byte {
	h := make([]byte, 512)
	copy(h, name)
	copy(h[100:], "0000644\x000000000\x000000000\x00")
	copy(h[124:], fmt.Sprintf("%011o\x0000000000000\x00", size))
	h[156] = typ
	copy(h[257:], "ustar\x0000")
	copy(h[148:], "        ")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return h
}

// The layers of an image share its limits, and the caller can cancel.
func TestLimitsAreOfTheImage(t *testing.T) {
	b := newBox(t)
	layer := pack(t, entry{Header: tar.Header{Name: "half"}, body: strings.Repeat("x", limit/2+1)})
	a := unpack.New(whole(layer), limits)
	desc, err := a.Apply(t.Context(), ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer}, b.mounts())
	if err != nil || desc.Digest != digest.FromBytes(layer) || desc.Size != int64(len(layer)) {
		t.Errorf("the first layer: got %+v, %v", desc, err)
	}
	if _, err := a.Apply(t.Context(), ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer}, b.mounts()); err == nil || !strings.Contains(err.Error(), "are left") {
		t.Errorf("the second layer: got %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := unpack.New(whole(layer), limits).Apply(gone, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer}, b.mounts()); err != context.Canceled {
		t.Errorf("with nobody waiting: got %v", err)
	}
}

func FuzzApply(f *testing.F) {
	f.Add(pack(f, entry{Header: tar.Header{Name: "a"}, body: "x"}, entry{Header: tar.Header{Name: "b", Linkname: "../secret", Typeflag: tar.TypeLink}}))
	f.Add(pack(f, entry{Header: tar.Header{Name: "../.wh..wh..opq"}}))
	f.Add(sparse(f, 1<<30))
	f.Add(gzipped(f, strings.NewReader("x")))
	f.Add(zstdWindow())
	f.Fuzz(func(t *testing.T, layer []byte) {
		b := newBox(t)
		_, _ = unpack.New(whole(layer), unpack.Limits{Bytes: 1 << 16, Entries: 100}).Apply(t.Context(), ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer}, b.mounts())
		b.untouched(t)
	})
}
