// Package shim holds what Penstock's shim adds to containerd's. A shim is the parent of one container and survives the
// end of the platform. It keeps what must not be lost while the platform is down:
//
//   - what the container prints, in its pipes (Output), of which the platform's driver is the other end;
//   - how the container ended (KeepExit).
//
// A shim also leaves the cgroup of the role that started it, and drops that role's environment variables (Settle).
package shim
