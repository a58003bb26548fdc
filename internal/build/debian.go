package build

import (
	"archive/tar"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
)

const (
	// debianFormat is increased when the same packages give a different layer.
	debianFormat   = 1
	debianMirror   = "http://deb.debian.org/debian"
	debianSecurity = "http://deb.debian.org/debian-security"
)

// unreleased are the suites without update archives (deb.debian.org/debian/dists).
var unreleased = []string{"sid", "unstable", "experimental", "rc-buggy"}

// debianLayer is what the cache stores about a layer of Debian packages.
type debianLayer struct {
	blob
	Packages map[string]string `json:"packages"` // versions by name of all packages in the tree, including the layers below
}

// debian builds the layers of Debian packages: one with the essential packages, which images share, and one with what the
// chosen packages add. mmdebstrap builds them once, and they are cached. refresh asks the archive for its current versions,
// and rebuilds a layer only if they differ.
type debian struct {
	cache   *cache
	spec    DebianSpec
	epoch   time.Time
	refresh bool
	say     func(what, detail string)
}

func (d *debian) layers(ctx context.Context) (layers []*layer, hashed int64, err error) {
	begin := time.Now()
	system, n, err := d.layer(ctx, nil, debianLayer{})
	if err != nil {
		return nil, 0, err
	}
	hashed += n
	layers = append(layers, d.built("debian", system, n == 0, time.Since(begin), nil))
	if len(d.spec.Packages) == 0 {
		return layers, hashed, nil
	}
	begin = time.Now()
	packages, n, err := d.layer(ctx, d.spec.Packages, system)
	if err != nil {
		return nil, 0, err
	}
	return append(layers, d.built("packages", packages, n == 0, time.Since(begin), d.spec.Packages)), hashed + n, nil
}

func (d *debian) built(name string, l debianLayer, cached bool, took time.Duration, packages []string) *layer {
	file := d.cache.layerPath(l.blob)
	return &layer{
		name: name, madeBy: strings.TrimSpace("penstock build: debian " + d.spec.Suite + " " + strings.Join(packages, " ")),
		built: l.blob, cached: cached, took: took,
		open:   func(context.Context) (io.ReadCloser, error) { return os.Open(file) },
		forget: func() error { return remove(file) },
		close:  nothing,
	}
}

func (d *debian) tool(args ...string) *mmdebstrap {
	return &mmdebstrap{args: args, suite: d.spec.Suite, sources: d.sources()}
}

// fingerprint identifies the request. The versions that the archive provided are in the layer's packages.
func (d *debian) fingerprint(packages []string, below debianLayer) string {
	h := sha256.New()
	fmt.Fprintf(h, "debian %d %d\n%q\n%q\n%d\n%s\n", debianFormat, layerFormat, d.sources(), packages, d.epoch.Unix(), below.Digest)
	return hex.EncodeToString(h.Sum(nil))
}

// sources returns the lines of sources.list(5).
func (d *debian) sources() []string {
	lines := []string{"deb " + cmp.Or(d.spec.Mirror, debianMirror) + " " + d.spec.Suite + " main"}
	if d.spec.Mirror == "" && !slices.Contains(unreleased, d.spec.Suite) {
		lines = append(lines, "deb "+debianMirror+" "+d.spec.Suite+"-updates main", "deb "+debianSecurity+" "+d.spec.Suite+"-security main")
	}
	return lines
}

// layer returns a layer from the cache, or builds it. hashed is 0 if it was cached.
func (d *debian) layer(ctx context.Context, packages []string, below debianLayer) (l debianLayer, hashed int64, err error) {
	fingerprint := d.fingerprint(packages, below)
	if l, ok := d.lookup(fingerprint); ok {
		if !d.refresh {
			return l, 0, nil
		}
		now, err := d.resolve(ctx, packages)
		if err != nil {
			return debianLayer{}, 0, err
		}
		if maps.Equal(now, l.Packages) {
			return l, 0, nil
		}
	}
	return d.make(ctx, fingerprint, packages, below)
}

func (d *debian) lookup(fingerprint string) (l debianLayer, ok bool) {
	l.blob, _, ok = d.cache.lookup(fingerprint, Zstd)
	if !ok {
		return debianLayer{}, false
	}
	raw, err := os.ReadFile(d.cache.indexPath(fingerprint))
	return l, err == nil && json.Unmarshal(raw, &l) == nil
}

// make runs mmdebstrap and packs what differs from the layer below.
func (d *debian) make(ctx context.Context, fingerprint string, packages []string, below debianLayer) (l debianLayer, hashed int64, err error) {
	what := strings.TrimSpace("making Debian " + d.spec.Suite + " " + strings.Join(packages, " "))
	d.say(what, "")
	tree := &rootfs{
		epoch: d.epoch, made: time.Now().Truncate(time.Second), drop: droppedOfDebian,
		through: map[string]func([]byte) []byte{
			"etc/shadow": withoutDays,
			"var/lib/dpkg/status": func(status []byte) []byte {
				l.Packages = installed(status)
				return status
			},
		},
	}
	tool := d.tool("--variant=essential")
	if len(packages) > 0 {
		if tree.below, err = d.entries(ctx, below); err != nil {
			return debianLayer{}, 0, err
		}
		f, err := os.Open(d.cache.layerPath(below.blob))
		if err != nil {
			return debianLayer{}, 0, err
		}
		defer f.Close()
		plain, err := zstd.NewReader(f)
		if err != nil {
			return debianLayer{}, 0, err
		}
		defer plain.Close()
		tool = d.tool("--variant=custom", "--include="+strings.Join(packages, ","))
		tool.onto = plain
	}
	path, err := d.cache.write("layers", func(f *os.File) (string, error) {
		plain, packed := newHasher(), newHasher()
		compressor, err := newCompressor(Zstd, io.MultiWriter(packed, f))
		if err != nil {
			return "", err
		}
		_, err = d.run(ctx, tool, what, func(out io.Reader) error {
			_, err := tree.pack(ctx, out, io.MultiWriter(plain, compressor))
			return err
		})
		if err := errors.Join(err, compressor.Close()); err != nil {
			return "", err
		}
		l.blob = blob{DiffID: plain.sum(), Digest: packed.sum(), Size: packed.size, MediaType: mediaTypes[Zstd]}
		hashed = plain.size + packed.size
		return d.cache.layerPath(l.blob), nil
	})
	if err != nil {
		return debianLayer{}, 0, err
	}
	if len(l.Packages) == 0 {
		return debianLayer{}, 0, errors.Join(errors.New("mmdebstrap made a tree without packages"), os.Remove(path))
	}
	return l, hashed, d.cache.remember(fingerprint, l)
}

// run runs the tool with the cache of packages, and reports what it does.
func (d *debian) run(ctx context.Context, tool *mmdebstrap, what string, read func(tar io.Reader) error) (said string, err error) {
	progress := &debianProgress{tell: func(detail string) { d.say(what, detail) }}
	p, err := openPackages(d.cache, progress.part)
	if err != nil {
		return "", err
	}
	tool.proxy, tool.line = p.url(), progress.line
	said, err = tool.run(ctx, read)
	return said, errors.Join(err, p.close(err != nil))
}

// entries reads the entries of a layer.
func (d *debian) entries(ctx context.Context, l debianLayer) (map[string]entrySum, error) {
	f, err := os.Open(d.cache.layerPath(l.blob))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	plain, err := zstd.NewReader(f)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	return (&rootfs{epoch: d.epoch, made: time.Now()}).pack(ctx, plain, io.Discard)
}

// resolve asks the archive for its current versions.
func (d *debian) resolve(ctx context.Context, packages []string) (map[string]string, error) {
	what := "asking for the versions of " + strings.TrimSpace("Debian "+d.spec.Suite+" "+strings.Join(packages, " "))
	d.say(what, "")
	args := []string{"--variant=essential", "--simulate"}
	if len(packages) > 0 {
		args = append(args, "--include="+strings.Join(packages, ","))
	}
	said, err := d.run(ctx, d.tool(args...), what, func(out io.Reader) error {
		_, err := io.Copy(io.Discard, out)
		return err
	})
	if err != nil {
		return nil, err
	}
	versions := make(map[string]string)
	for _, found := range toInstall.FindAllStringSubmatch(said, -1) {
		versions[found[1]] = found[2]
	}
	if len(versions) == 0 {
		return nil, fmt.Errorf("mmdebstrap reported no versions:\n%s", lastLines(said))
	}
	return versions, nil
}

// toInstall is a line of apt-get's simulation (apt-get(8), --simulate): Inst NAME (VERSION ARCHIVE [ARCHITECTURE]).
var toInstall = regexp.MustCompile(`(?m)^Inst (\S+)(?: \[[^]]*\])? \((\S+) `)

// installed reads names and versions from dpkg's status file (dpkg(1), FILES).
func installed(status []byte) map[string]string {
	versions := make(map[string]string)
	for paragraph := range strings.SplitSeq(string(status), "\n\n") {
		fields := make(map[string]string)
		for line := range strings.SplitSeq(paragraph, "\n") {
			if key, value, ok := strings.Cut(line, ": "); ok && key[0] != ' ' {
				fields[key] = value
			}
		}
		if fields["Package"] != "" && strings.HasSuffix(fields["Status"], " installed") {
			versions[fields["Package"]] = fields["Version"]
		}
	}
	return versions
}

// droppedOfDebian reports whether a file is a leftover of the build, or one that the engine provides in each container.
func droppedOfDebian(name string, kind byte) bool {
	dir, base := path.Split(name)
	switch {
	case strings.HasPrefix(name, "dev/"):
		return true
	case kind == tar.TypeDir:
		return false
	case strings.HasPrefix(name, "proc/"), strings.HasPrefix(name, "sys/"), strings.HasPrefix(name, "run/"), strings.HasPrefix(name, "tmp/"),
		strings.HasPrefix(name, "var/log/"), strings.HasPrefix(name, "var/tmp/"),
		strings.HasPrefix(name, "var/cache/apt/"), strings.HasPrefix(name, "var/lib/apt/lists/"), strings.HasPrefix(name, "var/cache/ldconfig/"):
		return true
	case name == "etc/hostname", name == "etc/resolv.conf", name == "etc/machine-id", name == "etc/.pwd.lock",
		name == "var/lib/dpkg/triggers/Lock", name == "var/lib/dpkg/lock", name == "var/lib/dpkg/lock-frontend":
		return true
	case dir == "etc/":
		return strings.HasSuffix(base, "-") // passwd-, shadow-: backups
	}
	return (dir == "var/lib/dpkg/" || dir == "var/cache/debconf/") && strings.HasSuffix(base, "-old")
}
