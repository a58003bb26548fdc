package arm

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"

	"penstock/internal/resource"
)

// An ETag has two parts. The first changes with each write of a user, and If-Match compares only that: what the platform
// reports, such as a provisioning state, cannot be overwritten by a client. The second changes with the answer, so that
// a client that polls with If-None-Match sees every change.

// versionOf returns the first part of the ETag of a resource.
func versionOf(m resource.Meta) string {
	return fmt.Sprintf("%x.%x", m.Created.UnixNano(), m.Generation)
}

// entityTag returns the ETag of an answer. m is nil if the answer is no resource that users write.
func entityTag(m *resource.Meta, body []byte) string {
	sum := sha256.Sum256(body)
	tag := hex.EncodeToString(sum[:12])
	if m != nil {
		tag = versionOf(*m) + "-" + tag
	}
	return `"` + tag + `"`
}

// isListed reports whether is holds for a tag of an If-Match or If-None-Match header (RFC 9110 section 13.1), or whether
// the header is "*". A proxy that compresses answers marks tags as weak; they are compared as if it did not.
func isListed(header []string, is func(tag string) bool) bool {
	for _, value := range header {
		for tag := range strings.SplitSeq(value, ",") {
			tag = strings.TrimSpace(tag)
			if tag == "*" || is(strings.Trim(strings.TrimPrefix(tag, "W/"), `"`)) {
				return true
			}
		}
	}
	return false
}

// precondition refuses a write whose If-Match or If-None-Match header does not hold. m is that of the stored resource. It
// is called inside the transaction of the write.
func (c *call) precondition(exists bool, m resource.Meta) error {
	is := func(tag string) bool {
		version, _, _ := strings.Cut(tag, "-")
		return version == versionOf(m)
	}
	if match := c.r.Header.Values("If-Match"); len(match) > 0 && (!exists || !isListed(match, is)) {
		if !exists {
			return refuse(http.StatusPreconditionFailed, "PreconditionFailed", "If-Match: there is no such resource; leave the header out to create it.")
		}
		return refuse(http.StatusPreconditionFailed, "PreconditionFailed",
			"If-Match: want the ETag of the stored resource, which begins with \"%s, got %s. Another write came first: read the resource again and merge.", versionOf(m), strings.Join(match, ", "))
	}
	if none := c.r.Header.Values("If-None-Match"); len(none) > 0 && exists && isListed(none, is) {
		return refuse(http.StatusPreconditionFailed, "PreconditionFailed", "If-None-Match: the resource exists already; leave the header out to replace it.")
	}
	return nil
}
