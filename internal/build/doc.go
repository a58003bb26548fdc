// Package build assembles an image from the layers that an image.yaml names and pushes it to a server's registry.
//
//	image.yaml --ParseSpec--> layers: from, to, compression
//	    |
//	    v  stat only: sizes, times, inodes
//	fingerprint --cache--> digest known: nothing is read
//	    |
//	    v  new or changed: read once, hashed, compressed
//	manifest --push--> per layer HEAD; the body only if the server does not have it
//
// Below the layers there may be a base: an image that the server has, one in an OCI layout, a root file system, or
// Debian packages. These are installed by mmdebstrap; its tar is checked, made to follow from the packages alone
// (rootfs), and split into what every Debian has and what the packages add, as examples/nginx and examples/torch have it.
//
// A folder with a Dockerfile is built by BuildKit or buildah, which push through a gate; for one with a
// requirements.txt a Dockerfile is written first.
//
// A layer's bytes follow from its files alone: entries are sorted, times are the epoch, owners are as image.yaml says
// and permissions are 0755 for folders and programs and 0644 for the rest, so that the same files give the same
// digest on every machine. Extended attributes are not kept, which includes file capabilities: containers run without
// new privileges, so they would have no effect.
//
// The cache keeps compressed layers, because compressing them again costs far more than reading them. A layer that is
// not compressed (weights, mostly) is not kept: it would double the disk that the weights take. Its digest is
// remembered, and when a server lacks it, its tar is written from the files again, straight into the connection;
// the server checks the digest, so a file that changed at that moment fails the push and nothing else.
package build
