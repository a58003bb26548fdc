package build

import (
	"net/url"
	"path/filepath"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// BaseSpec is the base of an image. At most one field is set.
type BaseSpec struct {
	Image  string // image on the server: NAME or NAME:TAG
	Layout string // a folder or tar with an OCI image layout, relative to the image.yaml
	RootFS string // a folder or tar with a root file system, relative to the image.yaml
	Debian *DebianSpec
}

// DebianSpec is a base of Debian packages.
type DebianSpec struct {
	Suite    string
	Packages []string // in addition to Debian's essential packages
	Mirror   string   // default: deb.debian.org, with its updates and security archives
}

var (
	suiteName = regexp.MustCompile(`^[a-z][a-z0-9-]{1,40}$`)
	// packageName follows Debian Policy 5.6.1, with the architecture (:amd64) and version (=1.2-3) that apt-get(8) accepts.
	packageName = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]{1,120}(?::[a-z0-9-]{1,20})?(?:=[A-Za-z0-9.+:~-]{1,120})?$`)
)

func (r *specReader) base(n *yaml.Node, field string) BaseSpec {
	var base BaseSpec
	found := r.mapping(n, field, map[string]func(*yaml.Node, string){
		"image": func(n *yaml.Node, field string) {
			if s, ok := r.string(n, field); ok {
				if base.Image = s; s == "" || strings.Contains(s, "@") {
					r.fault(n, field, "want NAME or NAME:TAG of an image that the server has, got %q", clip(s))
				}
			}
		},
		"layout": func(n *yaml.Node, field string) { base.Layout = r.local(n, field) },
		"rootfs": func(n *yaml.Node, field string) { base.RootFS = r.local(n, field) },
		"debian": func(n *yaml.Node, field string) { base.Debian = r.debian(n, field) },
	})
	if n.Kind == yaml.MappingNode && len(found) != 1 {
		r.fault(n, field, "want one of debian, image, layout and rootfs, got %d of them", len(found))
	}
	return base
}

func (r *specReader) debian(n *yaml.Node, field string) *DebianSpec {
	spec := &DebianSpec{}
	found := r.mapping(n, field, map[string]func(*yaml.Node, string){
		"suite": func(n *yaml.Node, field string) {
			if s, ok := r.string(n, field); ok {
				if spec.Suite = s; !suiteName.MatchString(s) {
					r.fault(n, field, "want the name of a Debian release, such as bookworm, got %q", clip(s))
				}
			}
		},
		"packages": func(n *yaml.Node, field string) {
			seen := map[string]bool{}
			r.list(n, field, func(n *yaml.Node, field string) {
				s, ok := r.string(n, field)
				switch {
				case !ok:
				case !packageName.MatchString(s):
					r.fault(n, field, "want the name of a Debian package, or NAME=VERSION, got %q", clip(s))
				case seen[s]:
					r.fault(n, field, "want each package once, got %q again", s)
				default:
					seen[s] = true
					spec.Packages = append(spec.Packages, s)
				}
			})
		},
		"mirror": func(n *yaml.Node, field string) {
			if s, ok := r.string(n, field); ok {
				if spec.Mirror = strings.TrimSuffix(s, "/"); !isMirror(s) {
					r.fault(n, field, "want http://HOST/PATH or https://HOST/PATH without user, spaces and brackets, got %q", clip(s))
				}
			}
		},
	})
	if n.Kind == yaml.MappingNode && !found["suite"] {
		r.fault(n, field+".suite", "it is missing; want the name of a Debian release, such as bookworm")
	}
	return spec
}

// isMirror accepts URLs that are safe in a line of sources.list(5).
func isMirror(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil &&
		u.RawQuery == "" && u.Fragment == "" && !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' || c == '[' || c == ']' })
}

// local parses a path inside the build folder.
func (r *specReader) local(n *yaml.Node, field string) string {
	s, ok := r.string(n, field)
	if ok && !filepath.IsLocal(filepath.FromSlash(s)) {
		r.fault(n, field, "want a path inside the folder of %s, relative to it, got %q", SpecFile, s)
	}
	return s
}
