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
// The layers may have a base: an image on the server, one in an OCI layout, a root file system, or Debian packages.
// mmdebstrap installs the packages. Its tar is checked, made to depend only on the packages (rootfs), and split into the
// essential packages and what the chosen packages add, as in examples/nginx and examples/torch.
//
// A layer with a Go package is compiled first, with the go command on PATH.
//
// BuildKit or buildah, which push through a gate, build a folder with a Dockerfile. For a folder with a requirements.txt, a
// Dockerfile is written first. Look finds out what a folder without any of these can serve, and the files to write for it.
//
// A layer's bytes depend only on its files: entries are sorted, times are the epoch, owners are those in image.yaml, and
// permissions are 0755 for folders and programs and 0644 for the rest. So the same files give the same digest on every
// machine. Extended attributes, including file capabilities, are dropped. Containers run without new privileges, so file
// capabilities would have no effect.
//
// The cache stores compressed layers, because compressing again costs far more than reading. Uncompressed layers (mostly
// weights) are not stored, because they would take the disk space of the weights twice. Only their digest is stored. If a
// server lacks such a layer, its tar is written from the files directly into the connection. The server checks the digest,
// so if a file changes at that moment, only the push fails.
package build
