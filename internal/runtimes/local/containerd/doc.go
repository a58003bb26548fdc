// Package containerd runs containers with containerd inside this process.
//
//	Driver ── client in memory ── containerd (plugins.go)     Root: images, layers, records of sandboxes
//	  │                              │ ttrpc, events           State: sockets, bundles, namespaces, pipes
//	  │ pipes: what containers print │
//	  └────────── shim, one a container ── runc ── the container's processes
//
// A shim and its container do not end with this process: the next one finds the shim by its socket, the sandbox by its
// record, and goes on reading the pipes that the shim kept open.
//
// A sandbox is what the containers of a replica share: a network namespace, 65,536 user ids, one disk for what they
// write, one cgroup above theirs.
package containerd
