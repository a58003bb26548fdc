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

// ErrImageNotFound is wrapped by Driver.Image when the image is not on this machine and cannot be fetched.
var ErrImageNotFound = errors.New("image not found")

// ErrImageUnauthorized is wrapped, together with ErrImageNotFound, when a registry refuses the image to this client.
var ErrImageUnauthorized = errors.New("image not given")

// ErrGone is wrapped by calls that name a sandbox or container that the driver does not have.
var ErrGone = errors.New("no such container")

// Driver runs single containers on this machine: containerd, or the fake. Calls for different replicas may be
// concurrent. The calls for one replica are made one after the other, by its keeper.
//
//	CreateSandbox ── Create ── Start ──(exit seen by Watch)── Delete ── RemoveSandbox
//	  network,        one a container; again after a crash:
//	  ids, disk       Delete, Create, Start in the same sandbox
//
// What is created survives the process that created it. After a restart, List returns what exists, and Watch reports
// what happens from then on.
type Driver interface {
	// Image makes the image ready to run (present, unpacked, for this architecture) and describes it. The error wraps
	// ErrImageNotFound if the image cannot be fetched. ref is a reference or, after "@", a digest.
	Image(ctx context.Context, ref string) (Image, error)

	// CreateSandbox creates what the containers of a replica share, and returns the address on which they answer. If
	// the sandbox already exists, it returns the existing address.
	CreateSandbox(ctx context.Context, s Sandbox) (netip.Addr, error)

	// RemoveSandbox undoes CreateSandbox, after the containers were deleted. It is not an error if there is no such
	// sandbox.
	RemoveSandbox(ctx context.Context, replica string) error

	// PutSecrets makes the sandbox's secret volume with this name contain exactly these files, by their paths in it. It
	// creates the volume if it is missing. A reader sees either all the old files or all the new ones. The files are
	// only in memory and are removed with the sandbox. PutSecrets reports whether anything has changed.
	PutSecrets(ctx context.Context, replica, volume string, files map[string]resource.Secret) (changed bool, err error)

	// Create creates a container without starting it. If it fails, nothing of the container is left.
	Create(ctx context.Context, c Container) error

	// Start runs the container's process and returns its PID.
	Start(ctx context.Context, id string) (pid int, err error)

	// Pause freezes the processes of a running container, with all their memory, until Resume. Signals have no effect
	// until then. It is not an error to pause a frozen container, or to resume one that is not frozen.
	Pause(ctx context.Context, id string) error
	Resume(ctx context.Context, id string) error

	// Kill sends a signal to the container's first process. SIGKILL goes to all its processes. It is not an error if
	// the container does not run.
	Kill(ctx context.Context, id string, signal syscall.Signal) error

	// Delete kills the container if it runs or is frozen, and removes all of it. It is not an error if there is no such
	// container.
	Delete(ctx context.Context, id string) error

	// List returns every sandbox that this driver has created and not removed, with its containers.
	List(ctx context.Context) ([]SandboxStatus, error)

	// Watch sends exits, OOM kills, and the names of images that are added or changed from now on. List shows an exit
	// that happened while nobody was watching. The channel closes when ctx ends.
	Watch(ctx context.Context) (<-chan Event, error)

	// Usage returns what the containers of a replica use together.
	Usage(ctx context.Context, replica string) (runtimes.Usage, error)
}

// Listener is implemented by a driver that can see the ports on which a container listens. The engine uses it to report
// the right port when the configured one is wrong, and to find the port when none is configured.
type Listener interface {
	// Listening lists the TCP sockets on which the processes of the container's sandbox listen. Any goroutine may call
	// it at any time, not only the container's keeper.
	Listening(ctx context.Context, id string) ([]netip.AddrPort, error)
}

// Execer is implemented by a driver that can run commands inside containers. Any goroutine may call Exec at any time,
// not only the container's keeper. Its contract is that of runtimes.Execer.
type Execer interface {
	Exec(ctx context.Context, id string, e runtimes.Exec) (code int, err error)
}

// Prefetcher is implemented by a driver that can read the weights in an image into memory before a container does.
type Prefetcher interface {
	// Prefetch returns how many bytes of weights it recognised in the image, and how many of them it had to read. ref
	// is the same as for Image.
	Prefetch(ctx context.Context, ref string) (weights, read int64, err error)
}

// Mapper is implemented by a driver that can distinguish a replica's own memory from shared memory. Its contract is
// that of runtimes.Mapper.
type Mapper interface {
	Mapped(ctx context.Context, replica string) (runtimes.Mapped, error)
}

// Image is what a driver knows about an image.
type Image struct {
	Ref    string
	Digest string // of the manifest for this architecture
	Bytes  int64  // compressed size of its layers
	Ports  []int  // TCP ports that it EXPOSEs
}

// Sandbox is what the containers of one replica share.
type Sandbox struct {
	Replica     string // name, unique on the machine
	Revision    resource.ID
	Environment resource.ID
	// DiskLimit is how many bytes its containers may write in total to their root file systems and volumes.
	DiskLimit    int64
	Capabilities resource.Capabilities
	// Record is stored with the sandbox and returned by List. It has all that the keeper needs to adopt the sandbox
	// after a restart.
	Record []byte
}

// Container is a container to create.
type Container struct {
	// ID is unique on the machine and does not change when the process inside is restarted. It is 32 hex digits,
	// because a replica's name is longer than containerd allows and contains two dashes in a row, which containerd
	// refuses.
	ID      string
	Replica string
	Name    string
	Image   string // as passed to Driver.Image, or name@digest
	Command []string
	Args    []string
	Env     []resource.EnvVar // override the image's own variables
	// Hints have the lowest precedence: a variable that the image or Env sets keeps its value.
	Hints  []resource.EnvVar
	Mounts []Mount
	// Resources are hard limits: memory without swap, and CPU as a quota and a weight.
	Resources resource.Resources
	// Hostname is the host name that the container sees.
	Hostname string
}

// Mount mounts a sandbox's volume, or a path in it, into a container. An EmptyDir is a folder on the sandbox's disk,
// created when it is first mounted. A volume of secrets is filled by PutSecrets and is read-only. A path in such a
// volume shows the files as they were when the container was created. A storage is a folder of the machine, in which
// the containers of all replicas have the same user IDs.
type Mount struct {
	resource.VolumeMount
	Type resource.VolumeType
	// Storage is set when Type is one of the storage types.
	Storage Storage
}

// Storage is a folder of the machine that replicas share.
type Storage struct {
	Folder   string
	ReadOnly bool
}

// SandboxStatus is a sandbox and the containers in it.
type SandboxStatus struct {
	Sandbox
	Address    netip.Addr
	Containers []ContainerStatus
}

// ContainerStatus is what the driver knows about a container now.
type ContainerStatus struct {
	ID      string
	Name    string
	State   State // also Running while it is frozen
	Paused  bool
	PID     int
	Created time.Time
	Started time.Time
	// Exit is set when State is Exited. If the process ended while the platform was down, and nobody recorded how, Code
	// is -1 and Reason is "Unknown".
	Exit *resource.Exit
}

// State is the state of a container.
type State string

const (
	Created State = "created"
	Running State = "running"
	Exited  State = "exited"
)

// Event is what Watch sends. Exactly one of Exit, OOM and Image is set. The OOM of a process comes before the exit that
// it may cause.
type Event struct {
	// Image is the name of an image that is new, or that now refers to another image.
	Image     string
	Container string // container ID
	// PID is what Start returned for the process that ended. Container IDs are reused, so the PID distinguishes the
	// exit of this process from a late event about an earlier one. It is not set for an OOM.
	PID int
	// Exit needs only Code and At. The engine sets OOM and Reason.
	Exit *resource.Exit
	OOM  *OOM
}

// OOM reports that the kernel killed a process of a container at its memory limit.
type OOM struct {
	At      time.Time
	Limit   uint64 // bytes
	Peak    uint64 // bytes
	Process string // name of the killed process, "" if unknown
}

// Console receives the output of containers. The driver calls Open when it attaches to a container's output, including
// after a restart of the platform. It writes output as soon as it reads it, and closes the writer at the end of the
// output.
type Console interface {
	Open(o Output) io.WriteCloser
}

// Output identifies one stream of one container.
type Output struct {
	Replica   string
	Revision  resource.ID // the sandbox's; the driver stores it, so output can be filed before the sandbox is adopted
	Container string      // container name
	ID        string
	Stream    string // "stdout" or "stderr"
}
