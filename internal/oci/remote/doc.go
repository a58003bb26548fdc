// Package remote reads images from other registries over the OCI distribution protocol. It stores nothing: manifests
// are returned, and blobs are streams that begin at a given offset.
//
// Responses of registries are not trusted. Credentials are sent only to their registry and to a token service on the
// same site. They are never sent to a mirror, the target of a redirect or a realm on another site.
package remote

import (
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net"
	"net/netip"
	"strings"

	"penstock/internal/resource"
)

// Login has the credentials for a registry. The zero value means none, which is enough for public images.
type Login struct {
	Username string
	password string
}

// NewLogin returns the login of a user. Printing it in any way does not show the password.
func NewLogin(username, password string) Login { return Login{username, password} }

// IsZero reports whether there are no credentials.
func (l Login) IsZero() bool { return l == Login{} }

func (l Login) String() string       { return l.Username + ":***" }
func (l Login) GoString() string     { return l.String() }
func (l Login) LogValue() slog.Value { return slog.StringValue(l.String()) }

// Key returns a key that is different for different logins and does not reveal them.
func (l Login) Key() string {
	sum := sha256.Sum256([]byte(l.Username + "\x00" + l.password))
	return hex.EncodeToString(sum[:])
}

// Docker Hub's names: the one that people write, and the host of its registry.
const (
	dockerHub    = resource.DockerHub
	dockerHubAPI = "registry-1.docker.io"
)

// Host returns the registry that a server setting or the first part of an image name means.
func Host(server string) string { return resource.RegistryHost(server) }

// Repository returns an image's repository as the registry names it.
func Repository(host, repository string) string {
	if Host(host) == dockerHub && !strings.Contains(repository, "/") {
		return "library/" + repository
	}
	return repository
}

// isLoopback reports whether a registry is on this machine, where plain http cannot be intercepted on a network.
func isLoopback(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	if name == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(name, "[]"))
	return err == nil && ip.IsLoopback()
}
