package build

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// SpecFile is the name of the file in the folder that describes an image.
const SpecFile = "image.yaml"

const (
	maxSpec = 1 << 20 // bytes; real files have a few hundred
	// maxLayers is Docker's limit, so that images can be used there too.
	maxLayers = 127
	maxID     = 1<<31 - 1
	// defaultUser is an unprivileged user: that of the nonroot variants of distroless images.
	defaultUser = "65532"
)

// Spec is the content of an image.yaml.
type Spec struct {
	Base       BaseSpec
	Layers     []LayerSpec
	Entrypoint []string
	Cmd        []string
	Env        map[string]string
	User       string // default: the base image's, or 65532
	WorkDir    string // default: the base image's, or /
	Ports      []int
	Labels     map[string]string
}

// LayerSpec describes a layer.
type LayerSpec struct {
	Name string
	From string // a file or folder, relative to the image.yaml
	Go   string // the Go package that is compiled into From before it is read; usually none
	// To is the path in the image: of the file, or of the folder that gets the content of the folder From. If To ends in
	// /, a file keeps its name and is put in that folder.
	To          string
	Compression Compression
	UID, GID    int
}

// Compression is how a layer is compressed.
type Compression string

const (
	None Compression = "none"
	Gzip Compression = "gzip"
	Zstd Compression = "zstd"
)

// InvalidError lists everything that is wrong with an image.yaml.
type InvalidError struct {
	Faults []Fault
}

// Fault is one error in an image.yaml.
type Fault struct {
	Field   string // such as layers[0].to; empty for the file as a whole
	Line    int    // 0 if it is not about a line
	Message string // what is required and what was found
}

func (e *InvalidError) Error() string {
	var b strings.Builder
	for i, f := range e.Faults {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(SpecFile)
		if f.Line > 0 {
			fmt.Fprintf(&b, ":%d", f.Line)
		}
		if f.Field != "" {
			b.WriteString(": " + f.Field)
		}
		b.WriteString(": " + f.Message)
	}
	return b.String()
}

// ParseSpec parses an image.yaml. Its error is an *InvalidError with all faults.
func ParseSpec(raw []byte) (Spec, error) {
	if len(raw) > maxSpec {
		return Spec{}, &InvalidError{[]Fault{{Message: fmt.Sprintf("want at most %d bytes, got %d", maxSpec, len(raw))}}}
	}
	var doc yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	if err := dec.Decode(&doc); err != nil {
		message := strings.TrimPrefix(err.Error(), "yaml: ")
		if errors.Is(err, io.EOF) {
			message = "it is empty; want at least layers or base"
		}
		return Spec{}, &InvalidError{[]Fault{{Message: message}}}
	}
	if len(doc.Content) != 1 {
		return Spec{}, &InvalidError{[]Fault{{Message: "it is empty; want at least layers or base"}}}
	}
	r := &specReader{}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		r.fault(nil, "", "want one YAML document, got more")
	}
	r.refuseAliases(&doc)
	if len(r.faults) > 0 { // the rest expects a valid tree
		return Spec{}, &InvalidError{r.faults}
	}
	spec := r.spec(doc.Content[0])
	if len(r.faults) > 0 {
		return Spec{}, &InvalidError{r.faults}
	}
	return spec, nil
}

// specReader walks the YAML tree itself, because the library's decoder stops at the first fault, does not report field
// names, and accepts 8080 for "8080".
type specReader struct {
	faults []Fault
}

func (r *specReader) fault(n *yaml.Node, field, format string, args ...any) {
	f := Fault{Field: field, Message: fmt.Sprintf(format, args...)}
	if n != nil {
		f.Line = n.Line
	}
	r.faults = append(r.faults, f)
}

// refuseAliases rejects aliases, with which a small file can expand to a huge one.
func (r *specReader) refuseAliases(n *yaml.Node) {
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		r.fault(n, "", "want no anchors (&) and aliases (*)")
		return
	}
	for _, child := range n.Content {
		r.refuseAliases(child)
	}
}

func (r *specReader) spec(n *yaml.Node) Spec {
	var spec Spec
	found := r.mapping(n, "", map[string]func(*yaml.Node, string){
		"base": func(n *yaml.Node, field string) { spec.Base = r.base(n, field) },
		"layers": func(n *yaml.Node, field string) {
			r.list(n, field, func(n *yaml.Node, field string) {
				spec.Layers = append(spec.Layers, r.layer(n, field))
			})
			if got := len(spec.Layers); n.Kind == yaml.SequenceNode && (got < 1 || got > maxLayers) {
				r.fault(n, field, "want 1 to %d layers, got %d", maxLayers, got)
			}
		},
		"entrypoint": func(n *yaml.Node, field string) { spec.Entrypoint = r.strings(n, field) },
		"cmd":        func(n *yaml.Node, field string) { spec.Cmd = r.strings(n, field) },
		"env": func(n *yaml.Node, field string) {
			spec.Env = r.pairs(n, field, envName, "a name of letters, digits and _ . -")
		},
		"user":    func(n *yaml.Node, field string) { spec.User = r.user(n, field) },
		"workdir": func(n *yaml.Node, field string) { spec.WorkDir = r.absolute(n, field) },
		"ports": func(n *yaml.Node, field string) {
			r.list(n, field, func(n *yaml.Node, field string) {
				spec.Ports = append(spec.Ports, r.integer(n, field, 1, 1<<16-1))
			})
		},
		"labels": func(n *yaml.Node, field string) { spec.Labels = r.pairs(n, field, labelName, "a name without spaces") },
	})
	if n.Kind == yaml.MappingNode && !found["layers"] && !found["base"] {
		r.fault(nil, "layers", "it is missing; want a list with at least one layer, or a base")
	}
	if spec.Base.Image == "" && spec.Base.Layout == "" {
		spec.User, spec.WorkDir = cmp.Or(spec.User, defaultUser), cmp.Or(spec.WorkDir, "/")
	}
	seen := make(map[string]int)
	for i, layer := range spec.Layers {
		if first, ok := seen[layer.Name]; ok && layer.Name != "" {
			r.fault(nil, fmt.Sprintf("layers[%d].name", i), "want a name of its own, got %q, which layers[%d] has", layer.Name, first)
			continue
		}
		seen[layer.Name] = i
	}
	return spec
}

var (
	layerNamePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)
	envName          = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)
	labelName        = regexp.MustCompile(`^[!-~]+$`)
	userName         = regexp.MustCompile(`^(?:[a-z_][a-z0-9_-]*|[0-9]{1,10})(?::(?:[a-z_][a-z0-9_-]*|[0-9]{1,10}))?$`)
	ownerIDs         = regexp.MustCompile(`^[0-9]{1,10}(?::[0-9]{1,10})?$`)
)

func (r *specReader) layer(n *yaml.Node, field string) LayerSpec {
	layer := LayerSpec{Compression: Gzip}
	found := r.mapping(n, field, map[string]func(*yaml.Node, string){
		"name": func(n *yaml.Node, field string) {
			if s, ok := r.string(n, field); ok {
				if layer.Name = s; !layerNamePattern.MatchString(s) {
					r.fault(n, field, "want 1 to 63 lower-case letters, digits and . _ -, got %q", s)
				}
			}
		},
		"from": func(n *yaml.Node, field string) { layer.From = r.local(n, field) },
		"go":   func(n *yaml.Node, field string) { layer.Go = r.local(n, field) },
		"to": func(n *yaml.Node, field string) {
			if layer.To = r.absolute(n, field); strings.HasPrefix(path.Base(layer.To), whiteout) {
				r.fault(n, field, "want a name that does not start with %s (which deletes files in an image), got %q", whiteout, layer.To)
			}
		},
		"compression": func(n *yaml.Node, field string) {
			s, ok := r.string(n, field)
			switch c := Compression(s); c {
			case None, Gzip, Zstd:
				layer.Compression = c
			default:
				if ok {
					r.fault(n, field, "want none, gzip or zstd, got %q", s)
				}
			}
		},
		"owner": func(n *yaml.Node, field string) { layer.UID, layer.GID = r.owner(n, field) },
	})
	for _, key := range []string{"name", "from", "to"} {
		if n.Kind == yaml.MappingNode && !found[key] {
			r.fault(n, field+"."+key, "it is missing")
		}
	}
	return layer
}

// mapping calls the function in known for each key, and returns the keys that were present.
func (r *specReader) mapping(n *yaml.Node, field string, known map[string]func(*yaml.Node, string)) map[string]bool {
	found := make(map[string]bool)
	if n.Kind != yaml.MappingNode {
		r.fault(n, field, "want a mapping, got %s", describe(n))
		return found
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		at := strings.TrimPrefix(field+"."+key.Value, ".")
		read, ok := known[key.Value]
		switch {
		case key.Kind != yaml.ScalarNode || !ok:
			r.fault(key, strings.TrimPrefix(field+"."+clip(key.Value), "."), "unknown field; want %s", alternatives(known))
		case found[key.Value]:
			r.fault(key, at, "it occurs twice")
		default:
			found[key.Value] = true
			read(value, at)
		}
	}
	return found
}

func (r *specReader) list(n *yaml.Node, field string, each func(n *yaml.Node, field string)) {
	if n.Kind != yaml.SequenceNode {
		r.fault(n, field, "want a list, got %s", describe(n))
		return
	}
	for i, item := range n.Content {
		each(item, fmt.Sprintf("%s[%d]", field, i))
	}
}

func (r *specReader) strings(n *yaml.Node, field string) []string {
	var list []string
	r.list(n, field, func(n *yaml.Node, field string) {
		if s, ok := r.string(n, field); ok {
			list = append(list, s)
		}
	})
	return list
}

// string accepts YAML strings without NUL, which would end the string for the kernel.
func (r *specReader) string(n *yaml.Node, field string) (string, bool) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
		hint := ""
		if n.Kind == yaml.ScalarNode && n.ShortTag() != "!!null" {
			hint = "; put it in quotes"
		}
		r.fault(n, field, "want a string, got %s%s", describe(n), hint)
		return "", false
	}
	if strings.ContainsRune(n.Value, 0) {
		r.fault(n, field, "want no NUL character, got %q", clip(n.Value))
		return "", false
	}
	return n.Value, true
}

// literal also accepts numbers and booleans, as they are written: PORT: 8080 is unambiguous.
func (r *specReader) literal(n *yaml.Node, field string) (string, bool) {
	switch n.ShortTag() {
	case "!!int", "!!float", "!!bool":
		if n.Kind == yaml.ScalarNode {
			return n.Value, true
		}
	}
	return r.string(n, field)
}

func (r *specReader) pairs(n *yaml.Node, field string, name *regexp.Regexp, want string) map[string]string {
	if n.Kind != yaml.MappingNode {
		r.fault(n, field, "want a mapping of names to values, got %s", describe(n))
		return nil
	}
	pairs := make(map[string]string)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		at := field + "." + clip(key.Value)
		if key.Kind != yaml.ScalarNode || !name.MatchString(key.Value) {
			r.fault(key, at, "want %s, got %s", want, describe(key))
			continue
		}
		if _, ok := pairs[key.Value]; ok {
			r.fault(key, at, "it occurs twice")
			continue
		}
		if s, ok := r.literal(value, at); ok {
			pairs[key.Value] = s
		}
	}
	return pairs
}

func (r *specReader) integer(n *yaml.Node, field string, low, high int) int {
	// Use Atoi instead of YAML's parser, which also accepts ports like 0x1F90 and 8_080.
	i, err := strconv.Atoi(n.Value)
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" || err != nil || i < low || i > high {
		r.fault(n, field, "want a number from %d to %d, got %s", low, high, describe(n))
		return 0
	}
	return i
}

func (r *specReader) user(n *yaml.Node, field string) string {
	s, ok := r.literal(n, field)
	if ok && (!userName.MatchString(s) || !validIDs(s)) {
		r.fault(n, field, "want a user, or user and group with : between, as names or numbers, got %q", clip(s))
	}
	return s
}

// owner parses "uid" or "uid:gid". Without a gid, the group has the same number as the user, as in other image builders.
func (r *specReader) owner(n *yaml.Node, field string) (uid, gid int) {
	s, ok := r.literal(n, field)
	if !ok {
		return 0, 0
	}
	if !ownerIDs.MatchString(s) || !validIDs(s) {
		r.fault(n, field, "want a user number, or user and group number with : between, got %q", clip(s))
		return 0, 0
	}
	user, group, both := strings.Cut(s, ":")
	if !both {
		group = user
	}
	uid, _ = strconv.Atoi(user) // validIDs has checked them
	gid, _ = strconv.Atoi(group)
	return uid, gid
}

// validIDs reports whether the numeric parts of user:group are valid Linux IDs.
func validIDs(s string) bool {
	for part := range strings.SplitSeq(s, ":") {
		if part[0] < '0' || part[0] > '9' {
			continue
		}
		if id, err := strconv.Atoi(part); err != nil || id > maxID {
			return false
		}
	}
	return true
}

func (r *specReader) absolute(n *yaml.Node, field string) string {
	s, ok := r.string(n, field)
	if ok && (!path.IsAbs(s) || path.Clean(s) != "/" && path.Clean(s) != strings.TrimSuffix(s, "/")) {
		r.fault(n, field, "want an absolute path without . and .. in it, got %q", clip(s))
	}
	return s
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!null":
		return "nothing"
	case "!!int", "!!float":
		return "the number " + clip(n.Value)
	case "!!bool":
		return "the boolean " + clip(n.Value)
	case "!!str":
		return strconv.Quote(clip(n.Value))
	}
	return clip(n.ShortTag()) + " " + strconv.Quote(clip(n.Value))
}

func clip(s string) string {
	const limit = 100
	if len(s) <= limit {
		return s
	}
	return s[:limit] + "..."
}

func alternatives(known map[string]func(*yaml.Node, string)) string {
	return strings.Join(slices.Sorted(maps.Keys(known)), ", ")
}
