// Package containerd runs containers with containerd inside this process.
//
//	Driver ── client in memory ── containerd (plugins.go)     Root: images, layers, records of sandboxes
//	  │                              │ ttrpc, events           State: sockets, bundles, namespaces, pipes
//	  │ pipes: what containers print │
//	  └────────── shim, one a container ── runc ── the container's processes
//
// A shim and its container survive the end of this process. The next process finds the shim by its socket and the
// sandbox by its record, and continues to read the pipes that the shim kept open.
//
// A sandbox is what the containers of a replica share: a network namespace, 65,536 user IDs, one disk for what they
// write, and one cgroup above theirs.
package containerd
