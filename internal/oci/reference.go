package oci

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Reference is an image name, split into its parts.
type Reference struct {
	Host       string // host of the registry; empty for an image of this server
	Repository string
	Tag        string        // empty only if there is a digest
	Digest     digest.Digest // takes precedence over the tag
}

// localPrefix precedes the names of this server's own images in the image store. No name with a registry host can begin
// with it, because a host has a dot or a colon or is "localhost".
const localPrefix = "local/"

// maxRepository is the longest repository name, including the host, that common registries accept.
const maxRepository = 255

// The patterns are from the OCI distribution specification 1.1, "Pulling manifests".
var (
	repositoryGrammar = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagGrammar        = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
	hostGrammar       = regexp.MustCompile(`^(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?$`)
)

// ParseReference parses an image name: langdetect, langdetect:1, team/langdetect@sha256:..., docker.io/library/nginx:1.
// The default tag is latest.
func ParseReference(s string) (Reference, error) {
	fail := func(want string) (Reference, error) {
		return Reference{}, fmt.Errorf("image name %q: %s", clip(s), want)
	}
	if s == "" {
		return fail("it is empty; want NAME, NAME:TAG or NAME@sha256:DIGEST")
	}
	if scheme, rest, ok := strings.Cut(s, "://"); ok {
		return fail(fmt.Sprintf("leave out %q: want %q", clip(scheme)+"://", clip(rest)))
	}
	var ref Reference
	name, dgst, hasDigest := strings.Cut(s, "@")
	if hasDigest {
		d, err := parseDigest(dgst)
		if err != nil {
			return fail(err.Error())
		}
		ref.Digest = d
	}
	if colon := strings.LastIndexByte(name, ':'); colon > strings.LastIndexByte(name, '/') {
		ref.Tag = name[colon+1:]
		name = name[:colon]
		if !tagGrammar.MatchString(ref.Tag) {
			return fail(fmt.Sprintf("tag: want 1 to 128 letters, digits and . _ - beginning with a letter, digit or _, got %q", clip(ref.Tag)))
		}
	}
	if len(name) > maxRepository {
		return fail(fmt.Sprintf("want at most %d characters before the tag, got %d", maxRepository, len(name)))
	}
	ref.Host, ref.Repository = splitHost(name)
	if ref.Host != "" && !hostGrammar.MatchString(ref.Host) {
		return fail(fmt.Sprintf("registry host: want a name or address with an optional port, got %q", ref.Host))
	}
	if !repositoryGrammar.MatchString(ref.Repository) {
		if lower := strings.ToLower(ref.Repository); lower != ref.Repository && repositoryGrammar.MatchString(lower) {
			return fail(fmt.Sprintf("want lower case, %q, got %q", lower, ref.Repository))
		}
		return fail(fmt.Sprintf("name: want parts of lower-case letters and digits, joined inside by . _ __ or -, with / between parts, got %q", ref.Repository))
	}
	if ref.Tag == "" && ref.Digest == "" {
		ref.Tag = "latest"
	}
	return ref, nil
}

// splitHost splits off a registry host by Docker's rule: if a name has several parts, the first is a host if it has a
// dot or a colon or is localhost.
func splitHost(name string) (host, repository string) {
	first, rest, ok := strings.Cut(name, "/")
	if ok && (strings.ContainsAny(first, ".:") || first == "localhost") {
		return first, rest
	}
	return "", name
}

// String returns the name as users write it.
func (r Reference) String() string {
	var b strings.Builder
	b.WriteString(r.repository())
	if r.Tag != "" {
		b.WriteString(":" + r.Tag)
	}
	if r.Digest != "" {
		b.WriteString("@" + r.Digest.String())
	}
	return b.String()
}

// repository returns the name without tag and digest: the part between /v2/ and /manifests/ in the registry's paths.
func (r Reference) repository() string {
	if r.Host != "" {
		return r.Host + "/" + r.Repository
	}
	return r.Repository
}

// storeName returns the name of the image's record in containerd's image store.
func (r Reference) storeName() string {
	name := r.repository()
	if r.Host == "" {
		name = localPrefix + name
	}
	if r.Digest != "" {
		return name + "@" + r.Digest.String()
	}
	return name + ":" + r.Tag
}

// fromStoreName is the inverse of storeName. ok is false for records of other programs.
func fromStoreName(name string) (ref Reference, ok bool) {
	ref, err := ParseReference(strings.TrimPrefix(name, localPrefix))
	if err != nil || ref.storeName() != name {
		return Reference{}, false
	}
	return ref, true
}

// parseDigest accepts only sha256. containerd's writer computes it while a blob arrives, so nothing must be read again
// to verify it.
func parseDigest(s string) (digest.Digest, error) {
	d := digest.Digest(s)
	if err := d.Validate(); err != nil || d.Algorithm() != digest.SHA256 {
		return "", fmt.Errorf("digest: want sha256: and 64 hex digits, got %q", clip(s))
	}
	return d, nil
}

// clip shortens untrusted input for an error message.
func clip(s string) string {
	const limit = 300
	if len(s) <= limit {
		return s
	}
	return s[:limit] + "..."
}
