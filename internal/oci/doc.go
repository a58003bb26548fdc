// Package oci keeps images in containerd's content store: a registry endpoint through which they come in,
// names, and what the rest of the server asks about them.
//
//	penstock build, docker push, crane
//	        | OCI distribution 1.1 under /v2/
//	        v
//	    Registry --- writes ---> content.Store   blobs, once, by digest
//	        |                    leases.Manager  what has come in but belongs to no image yet
//	        '------ names -----> images.Store    local/langdetect:1 -> manifest digest
//	                                  ^
//	    Images --- Resolve, List, Delete
//	    Puller --- from other registries, as a revision asks for them
//	    Collector --- what no name, revision or container needs
//
// A blob is stored once for the registry and for the runtime, and streams through a buffer of fixed size.
// What an upload brings is held by a lease that expires; the manifest that names it then holds it by
// containerd's gc.ref labels, and the image record holds the manifest.
//
// All calls work in the containerd namespace of their context, and in [Namespace] when it has none.
package oci

import (
	"context"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/opencontainers/go-digest"
)

// Namespace is the containerd namespace that Penstock's images and containers live in.
const Namespace = "penstock"

// Stores are the parts of containerd in which images are kept. They must belong together: leases and image
// records of one metadata database, over that database's view of the content.
type Stores struct {
	Content content.Store
	Images  images.Store
	Leases  leases.Manager
	// Freed is told that something may be collected, and must not block. nil: it is collected at once, while the one who
	// freed it waits.
	Freed func()
	// Needed tells which manifests revisions need, whatever names there are; nil: none.
	Needed func(ctx context.Context) (map[digest.Digest]bool, error)
}

func inNamespace(ctx context.Context) context.Context {
	if _, ok := namespaces.Namespace(ctx); ok {
		return ctx
	}
	return namespaces.WithNamespace(ctx, Namespace)
}
