// Package shim is what Penstock's shim does beyond containerd's. A shim is the parent of one container and outlives the
// platform, so what must not be lost while the platform is away is kept here:
//
//   - what the container prints, in its pipes (Output), of which the platform's driver is the other end;
//   - how the container ended (KeepExit).
//
// A shim also leaves the cgroup of the role that started it, and that role's environment (Settle).
package shim
