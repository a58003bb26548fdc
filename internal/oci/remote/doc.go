// Package remote reads images from other registries over the OCI distribution protocol. It holds no image: manifests
// are returned, blobs are streams that begin where the caller says.
//
// What a registry answers is not trusted. Credentials go to the registry that they are for and to the token service of
// its own site, never to a mirror, a redirect's target or a realm elsewhere.
package remote

import (
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net"
	"net/netip"
	"strings"
)

// Login is who asks a registry. The zero value is nobody, whom public images are given to.
type Login struct {
	Username string
	password string
}

// NewLogin returns the login of a user, whose password is not shown by any way of printing it.
func NewLogin(username, password string) Login { return Login{username, password} }

// IsZero says whether nobody asks.
func (l Login) IsZero() bool { return l == Login{} }

func (l Login) String() string       { return l.Username + ":***" }
func (l Login) GoString() string     { return l.String() }
func (l Login) LogValue() slog.Value { return slog.StringValue(l.String()) }

// Key tells logins apart without telling what they are.
func (l Login) Key() string {
	sum := sha256.Sum256([]byte(l.Username + "\x00" + l.password))
	return hex.EncodeToString(sum[:])
}

// Docker Hub's names: what people write, and where its registry answers.
const (
	dockerHub    = "docker.io"
	dockerHubAPI = "registry-1.docker.io"
)

// Host is the registry that a server setting or the first part of an image name means: without scheme and path, in
// lower case, and the same for all of Docker Hub's names.
func Host(server string) string {
	_, rest, ok := strings.Cut(server, "://")
	if !ok {
		rest = server
	}
	host, _, _ := strings.Cut(rest, "/")
	host = strings.ToLower(host)
	switch host {
	case "index.docker.io", dockerHubAPI, "www.docker.io", "hub.docker.com":
		return dockerHub
	}
	return host
}

// Repository is an image's repository as a registry knows it.
func Repository(host, repository string) string {
	if Host(host) == dockerHub && !strings.Contains(repository, "/") {
		return "library/" + repository
	}
	return repository
}

// isLoopback says whether a registry is on this machine, where nobody listens in on plain http.
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
