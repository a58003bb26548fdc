package local

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"syscall"
	"time"

	"penstock/internal/resource"
	"penstock/internal/runtimes"
)

// ErrImageNotFound is wrapped by Driver.Image when the image is not on this machine and cannot be had.
var ErrImageNotFound = errors.New("image not found")

// ErrImageUnauthorized is wrapped, beside ErrImageNotFound, when a registry does not give the image to who asks.
var ErrImageUnauthorized = errors.New("image not given")

// ErrGone is wrapped by calls that name a sandbox or container that the driver does not have.
var ErrGone = errors.New("no such container")

// Driver runs single containers on this machine: containerd, or the fake. Calls about different replicas may be made
// at once; calls about one replica are made one after another by its keeper.
//
//	CreateSandbox ── Create ── Start ──(exit seen by Watch)── Delete ── RemoveSandbox
//	  network,        one a container; again after a crash:
//	  ids, disk       Delete, Create, Start in the same sandbox
//
// What is created outlives the process that created it: after a restart List tells what there is and Watch goes on.
type Driver interface {
	// Image makes the image ready to run (present, unpacked, of this architecture) and says what it is. It wraps
	// ErrImageNotFound when it cannot be had. ref is a reference or, after "@", a digest.
	Image(ctx context.Context, ref string) (Image, error)

	// CreateSandbox makes what the containers of a replica share and returns the address that they answer on. When it
	// exists already, that one is returned.
	CreateSandbox(ctx context.Context, s Sandbox) (netip.Addr, error)

	// RemoveSandbox undoes CreateSandbox after its containers were deleted. Removing what is not there is no error.
	RemoveSandbox(ctx context.Context, replica string) error

	// PutSecrets makes the volume of secrets that the sandbox has by that name hold these files and no others, by their
	// paths in it, and makes it when it is not there. Who reads it sees the files before or the files after, whole. They
	// are in memory only, and gone with the sandbox. It says whether anything has changed.
	PutSecrets(ctx context.Context, replica, volume string, files map[string]resource.Secret) (changed bool, err error)

	// Create makes a container that has not been started. On an error nothing of it is left.
	Create(ctx context.Context, c Container) error

	// Start runs the container's process and returns its pid.
	Start(ctx context.Context, id string) (pid int, err error)

	// Kill sends a signal to the container's first process; SIGKILL goes to all of them. A container that does not run
	// is no error.
	Kill(ctx context.Context, id string, signal syscall.Signal) error

	// Delete kills the container if it runs and removes all of it. Deleting what is not there is no error.
	Delete(ctx context.Context, id string) error

	// List tells every sandbox that this driver made and has not removed, with its containers.
	List(ctx context.Context) ([]SandboxStatus, error)

	// Watch sends exits, OOM kills and the names of images that come or change from now on. An exit that happened while nobody watched shows in List. The channel
	// closes when ctx ends.
	Watch(ctx context.Context) (<-chan Event, error)

	// Usage says what the containers of a replica use together.
	Usage(ctx context.Context, replica string) (runtimes.Usage, error)
}

// Listener is what a driver may be that can see the ports of a container: who asked for the wrong one is told the right
// one, and who asked for none gets it.
type Listener interface {
	// Listening lists the TCP sockets on which the processes of the container's sandbox listen. It is called by others
	// than the container's keeper, at any time.
	Listening(ctx context.Context, id string) ([]netip.AddrPort, error)
}

// Execer is what a driver may be that can run commands inside containers. Exec is called by others than the container's
// keeper, at any time; the promise is that of runtimes.Execer.
type Execer interface {
	Exec(ctx context.Context, id string, e runtimes.Exec) (code int, err error)
}

// Prefetcher is what a driver may be that can read the weights of an image into memory before a container does.
type Prefetcher interface {
	// Prefetch returns how many bytes of weights the image has, of those that it recognises, and how many it had to read.
	// ref is as for Image.
	Prefetch(ctx context.Context, ref string) (weights, read int64, err error)
}

// Mapper is what a driver may be that can tell memory of a replica's own from what it shares; the promise is that of
// runtimes.Mapper.
type Mapper interface {
	Mapped(ctx context.Context, replica string) (runtimes.Mapped, error)
}

// Image is what a driver knows of an image.
type Image struct {
	Ref    string
	Digest string // of the manifest for this architecture
	Bytes  int64  // compressed size of its layers
	Ports  []int  // of TCP that it EXPOSEs
}

// Sandbox is what the containers of one replica share.
type Sandbox struct {
	Replica     string // name, unique on the machine
	Revision    resource.ID
	Environment resource.ID
	// DiskLimit bounds, in bytes, what its containers write to their root file systems and volumes together.
	DiskLimit    int64
	Capabilities resource.Capabilities
	// Record is kept with the sandbox and comes back in List: all that its keeper needs to adopt it after a restart.
	Record []byte
}

// Container is one container to create.
type Container struct {
	// ID is unique on the machine and stable over restarts of the process inside: 32 hex digits, because a replica's
	// name is longer than containerd allows and has the two dashes that it refuses.
	ID      string
	Replica string
	Name    string
	Image   string // as Image.Ref was asked, or name@digest
	Command []string
	Args    []string
	Env     []resource.EnvVar // over the image's own variables
	// Hints are below both: a variable that the image or Env sets keeps its value.
	Hints  []resource.EnvVar
	Mounts []Mount
	// Resources are hard limits: memory without swap, CPU as a quota and a weight.
	Resources resource.Resources
	// Hostname is what the container calls itself.
	Hostname string
}

// Mount puts a volume of a sandbox, or what is at a path in it, into a container. An EmptyDir is a folder on the
// sandbox's disk, made when it is first mounted. A volume of secrets was put there by PutSecrets and cannot be written to;
// a path in it shows what was there when the container was created.
// A storage is a folder of the machine, in which containers of all replicas have the same users.
type Mount struct {
	resource.VolumeMount
	Type resource.VolumeType
	// Storage is set when Type is one of storages.
	Storage Storage
}

// Storage is a folder of the machine that replicas share.
type Storage struct {
	Folder   string
	ReadOnly bool
}

// SandboxStatus is a sandbox and what runs in it.
type SandboxStatus struct {
	Sandbox
	Address    netip.Addr
	Containers []ContainerStatus
}

// ContainerStatus is what the driver knows of a container now.
type ContainerStatus struct {
	ID      string
	Name    string
	State   State
	PID     int
	Created time.Time
	Started time.Time
	// Exit is set when State is Exited. Its Code is -1 and its Reason "Unknown" when the process ended while the
	// platform was not there to see it.
	Exit *resource.Exit
}

// State is the state of a container.
type State string

const (
	Created State = "created"
	Running State = "running"
	Exited  State = "exited"
)

// Event is what Watch sends. Exactly one of Exit, OOM and Image is set; the OOM of a process comes before the exit that
// it may cause.
type Event struct {
	// Image is the name of an image that was not there before, or means another one now.
	Image     string
	Container string // ID
	// PID is what Start returned for the process that ended. Because an ID is used again, it tells the exit of this
	// process from the late news of one before it. Not set for an OOM.
	PID int
	// Exit needs its Code and At; OOM and Reason are filled in by the engine.
	Exit *resource.Exit
	OOM  *OOM
}

// OOM tells that the kernel killed a process of a container at its memory limit.
type OOM struct {
	At      time.Time
	Limit   uint64 // bytes
	Peak    uint64 // bytes
	Process string // name of the killed process, "" when the kernel did not tell
}

// Console takes what containers print. The driver calls Open when it attaches to a container's output, also again
// after a restart of the platform, writes what it reads as it comes, and closes it at the end of the output.
type Console interface {
	Open(o Output) io.WriteCloser
}

// Output names one stream of one container.
type Output struct {
	Replica   string
	Revision  resource.ID // the sandbox's; the driver keeps it, so that output is filed before anybody has adopted it
	Container string      // name
	ID        string
	Stream    string // "stdout" or "stderr"
}
