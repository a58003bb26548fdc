package containerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	images "penstock/internal/oci"
	"penstock/internal/resource"
	"penstock/internal/runtimes/local"
	"penstock/internal/shim"
)

type imageOf = images.Image

const (
	// processLimit is twice Podman's default (pids_limit, containers.conf(5)), because model servers start a thread per
	// core and request in several libraries.
	processLimit = 4096
	// fileLimitWanted is the limit that Docker Engine's unit has set (LimitNOFILE, docker.service). With a lower one,
	// servers with one connection per user run out of files.
	fileLimitWanted = 1 << 20
	cpuPeriod       = 100_000 // microseconds, the kernel's default
	// pathDefault is what Docker sets if an image has no PATH (moby: DefaultPathEnvUnix).
	pathDefault = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// dockerCapabilities are the capabilities that images made for Docker expect (docs.docker.com/engine/containers/run,
// "Runtime privilege and Linux capabilities").
var dockerCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// hostCapabilities are those of dockerCapabilities that reach beyond the container if its root is the host's root.
var hostCapabilities = []string{"CAP_NET_RAW", "CAP_MKNOD", "CAP_AUDIT_WRITE", "CAP_SYS_CHROOT"}

func capabilities(want resource.Capabilities, remapped bool) []string {
	switch {
	case want == resource.CapabilitiesNone:
		return nil
	case remapped:
		return dockerCapabilities
	}
	return slices.DeleteFunc(slices.Clone(dockerCapabilities), func(c string) bool { return slices.Contains(hostCapabilities, c) })
}

// spec returns the container's OCI runtime specification. Its root file system must be mounted, because the image's
// user is looked up there.
func (d *Driver) spec(ctx context.Context, record *containers.Container, c *container, s *sandbox, want local.Container, image imageOf) (*specs.Spec, error) {
	command, err := commandOf(want, image)
	if err != nil {
		return nil, err
	}
	who, home, err := lookUpUser(c.path("rootfs"), image.Config.User)
	if err != nil {
		return nil, err
	}
	env := make([]string, len(want.Env))
	for i, v := range want.Env {
		env[i] = v.Name + "=" + v.Value
	}
	hints := make([]string, len(want.Hints))
	for i, v := range want.Hints {
		hints[i] = v.Name + "=" + v.Value
	}
	options := []oci.SpecOpts{
		oci.WithRootFSPath(c.path("rootfs")),
		withImage(who, image.Config),
		oci.WithProcessArgs(command...),
		oci.WithEnv(env),
		withUnlessSet(append(hints, pathDefault)...),
		withHome(home),
		oci.WithHostname(want.Hostname),
		oci.WithoutRunMount, // Docker has no such mount, and images have files there
		oci.WithCapabilities(capabilities(s.Capabilities, s.FirstID != 0)),
		oci.WithNoNewPrivileges,
		seccomp.WithDefaultProfile(), // after the capabilities, on which it depends
		oci.WithCgroup(c.cgroup),
		oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: s.Netns}),
		oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.CgroupNamespace}),
		oci.WithRlimit(&specs.POSIXRlimit{Type: "RLIMIT_NOFILE", Soft: d.files, Hard: d.files}),
		withLimits(want.Resources),
		oci.WithAnnotations(map[string]string{shim.CgroupAnnotation: d.cfg.ShimCgroup}),
		withVolumes(c, want.Mounts),
		withHostFiles(c), // after the volumes, one of which may be /etc
	}
	if s.FirstID != 0 {
		ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: s.FirstID, Size: idCount}}
		options = append(options, oci.WithUserNamespace(ids, ids), withHostSysfs)
	}
	spec, err := oci.GenerateSpec(ctx, d.client, record, options...)
	if err != nil {
		return nil, err
	}
	return spec, neverAbove(spec)
}

// commandOf returns the command to run. As in Kubernetes and Container Apps, a command replaces the image's entrypoint
// and its cmd, and args replace only the cmd.
func commandOf(want local.Container, image imageOf) ([]string, error) {
	command, args := want.Command, want.Args
	if len(command) == 0 {
		command = image.Config.Entrypoint
		if len(args) == 0 {
			args = image.Config.Cmd
		}
	}
	all := append(slices.Clone(command), args...)
	if len(all) == 0 {
		return nil, errors.New("image " + want.Image + " says nothing to run; set command")
	}
	return all, nil
}

// withUnlessSet adds the variables that the process does not have yet.
func withUnlessSet(vars ...string) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *specs.Spec) error {
		for _, v := range vars {
			name, _, _ := strings.Cut(v, "=")
			if !slices.ContainsFunc(s.Process.Env, func(have string) bool { return strings.HasPrefix(have, name+"=") }) {
				s.Process.Env = append(s.Process.Env, v)
			}
		}
		return nil
	}
}

// withLimits sets memory as a limit without swap, and CPU as a quota and a weight.
func withLimits(r resource.Resources) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *specs.Spec) error {
		if r.MilliCPU < 1 || r.Memory < 1 {
			return fmt.Errorf("resources: want CPU and memory, got %d thousandths and %d bytes", r.MilliCPU, r.Memory)
		}
		period, quota := uint64(cpuPeriod), max(r.MilliCPU*cpuPeriod/1000, 1000) // the kernel accepts no quota below 1 ms
		shares := uint64(max(r.MilliCPU*1024/1000, 2))                           // 1,024 per CPU, the kernel's scale
		processes := int64(processLimit)
		s.Linux.Resources.CPU = &specs.LinuxCPU{Period: &period, Quota: &quota, Shares: &shares}
		s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &r.Memory, Swap: &r.Memory} // swap counts both together
		s.Linux.Resources.Pids = &specs.LinuxPids{Limit: &processes}
		return nil
	}
}

// withHostFiles mounts the three files that a runtime must provide to a container.
func withHostFiles(c *container) oci.SpecOpts {
	options := []string{"bind", "rw", "nosuid", "noexec", "nodev"}
	mounts := make([]specs.Mount, len(hostFiles))
	for i, name := range hostFiles {
		mounts[i] = specs.Mount{Destination: "/etc/" + name, Type: "bind", Source: filepath.Join(c.path(hostFilesAt), name), Options: options}
	}
	return oci.WithMounts(mounts)
}

// withHostSysfs replaces /sys with the host's, read-only. The network namespace belongs to the host, so the kernel does
// not allow a root of another user namespace to mount a new sysfs.
func withHostSysfs(_ context.Context, _ oci.Client, _ *containers.Container, s *specs.Spec) error {
	for i, m := range s.Mounts {
		if m.Type == "sysfs" {
			s.Mounts[i] = specs.Mount{Destination: "/sys", Type: "bind", Source: "/sys", Options: []string{"rbind", "rro", "nosuid", "noexec", "nodev"}}
		}
	}
	return nil
}

// neverAbove prevents a container from inheriting the protection that this process may have from the kernel's OOM killer:
// it raises a negative score to 0, which is always allowed. Other scores stay unchanged, so no privilege is needed.
func neverAbove(s *specs.Spec) error {
	b, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return err
	}
	if score, err := strconv.Atoi(strings.TrimSpace(string(b))); err != nil || score >= 0 {
		return err
	}
	zero := 0
	s.Process.OOMScoreAdj = &zero
	return nil
}

// fileLimit returns the open-file limit of containers. Raising it above our own needs a privilege that root of a
// virtual machine may lack.
func fileLimit() (uint64, error) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("limit of open files: %w", err)
	}
	return min(l.Max, fileLimitWanted), nil
}
