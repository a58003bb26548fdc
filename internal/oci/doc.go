// Package oci keeps images in containerd's content store. It has the registry endpoint that receives images, the names
// of images, and what the rest of the server needs to know about them.
//
//	penstock build, docker push, crane
//	        | OCI distribution 1.1 under /v2/
//	        v
//	    Registry --- writes ---> content.Store   blobs, each once, by digest
//	        |                    leases.Manager  uploaded blobs that belong to no image yet
//	        '------ names -----> images.Store    local/langdetect:1 -> manifest digest
//	                                  ^
//	    Images --- Resolve, List, Delete
//	    Puller --- pulls from other registries when a revision needs an image
//	    Collector --- removes what no name, revision or container needs
//
// Each blob is stored once, for the registry and for the runtime, and is streamed through a buffer of fixed size. A
// lease that expires holds an uploaded blob until a manifest refers to it. The manifest then holds it through
// containerd's gc.ref labels, and the image record holds the manifest.
//
// All calls use the containerd namespace of their context, or [Namespace] if it has none.
package oci

import (
	"context"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/opencontainers/go-digest"
)

// Namespace is the containerd namespace of Penstock's images and containers.
const Namespace = "penstock"

// Stores are the parts of containerd that store images. They must belong together: the leases and image records must be
// in one metadata database, and the content must be that database's view.
type Stores struct {
	Content content.Store
	Images  images.Store
	Leases  leases.Manager
	// Freed is called when something can be collected. It must not block. If it is nil, garbage is collected at once
	// while the caller waits.
	Freed func()
	// Needed returns the manifests that revisions need, whatever their names are. nil means none.
	Needed func(ctx context.Context) (map[digest.Digest]bool, error)
	// Self says whether a registry's host is this server, so that a name means what was pushed under it. nil means never.
	Self func(host string) bool
}

// reference parses an image name. One of this server's own registry has no host.
func (s Stores) reference(name string) (Reference, error) {
	ref, err := ParseReference(name)
	if err == nil && ref.Host != "" && s.Self != nil && s.Self(ref.Host) {
		ref.Host = ""
	}
	return ref, err
}

func inNamespace(ctx context.Context) context.Context {
	if _, ok := namespaces.Namespace(ctx); ok {
		return ctx
	}
	return namespaces.WithNamespace(ctx, Namespace)
}
