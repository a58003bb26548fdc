package doctor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"penstock/internal/diskspace"
)

// The capabilities that the engine uses. The numbers are those of linux/capability.h.
var needed = []struct {
	bit  uint
	name string
}{
	{0, "CAP_CHOWN"}, {1, "CAP_DAC_OVERRIDE"}, {5, "CAP_KILL"}, {6, "CAP_SETGID"}, {7, "CAP_SETUID"},
	{12, "CAP_NET_ADMIN"}, {21, "CAP_SYS_ADMIN"}, {27, "CAP_MKNOD"},
}

const capSysResource = 24

func rights(context.Context, Options) []Finding {
	if uid := os.Geteuid(); uid != 0 {
		return fail("containers with limits and their own networks need root", asRoot+", or serve without containers: --runtime fake", "user id %d", uid)
	}
	set, err := effective()
	if err != nil {
		return warn("", "", "root; its capabilities cannot be read: %v", err)
	}
	var missing []string
	for _, c := range needed {
		if set&(1<<c.bit) == 0 {
			missing = append(missing, c.name)
		}
	}
	if len(missing) > 0 {
		return fail("containers cannot be created", "start Penstock outside a container, or in a privileged one", "root without %s", strings.Join(missing, ", "))
	}
	if set&(1<<capSysResource) == 0 {
		return warn("the server cannot protect itself from the OOM killer or raise limits on open files", "give the process CAP_SYS_RESOURCE", "root without CAP_SYS_RESOURCE")
	}
	return ok("root with all needed capabilities")
}

func effective() (uint64, error) {
	v, err := field("/proc/self/status", "CapEff:")
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(v, 16, 64)
}

// field returns the first word after name in a file with lines of the form "name: value".
func field(path, name string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, found := strings.CutPrefix(lines.Text(), name); found {
			if words := strings.Fields(rest); len(words) > 0 {
				return words[0], nil
			}
		}
	}
	return "", fmt.Errorf("%s: no line %s", path, name)
}

func kernel(context.Context, Options) []Finding {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return fail("", "", "uname: %v", err)
	}
	release := unix.ByteSliceToString(u.Release[:])
	major, minor, err := Release(release)
	switch {
	case err != nil:
		return warn("the kernel's features are unknown", "", "%v", err)
	case major < 5 || major == 5 && minor < 4:
		return fail("cgroups, overlayfs and nftables of this kernel lack needed features", "use Linux 5.19 or newer", "Linux %s", release)
	case major == 5 && minor < 19:
		return warn("containers run without user namespaces, because overlayfs supports mapped IDs only from Linux 5.19 on", "use Linux 5.19 or newer", "Linux %s", release)
	}
	return ok("Linux %s", release)
}

// Release parses the first two numbers of a kernel release such as "6.18.44-fc".
func Release(s string) (major, minor int, err error) {
	first, rest, found := strings.Cut(s, ".")
	second := rest
	if i := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		second = rest[:i]
	}
	major, err = strconv.Atoi(first)
	if err == nil {
		minor, err = strconv.Atoi(second)
	}
	if err != nil || !found || major < 0 {
		return 0, 0, fmt.Errorf("kernel release: want MAJOR.MINOR..., got %q", s)
	}
	return major, minor, nil
}

func seccomp(context.Context, Options) []Finding {
	b, err := os.ReadFile("/proc/sys/kernel/seccomp/actions_avail")
	if err != nil || !strings.Contains(string(b), "errno") {
		return warn("containers run without a system call filter", "use a kernel with CONFIG_SECCOMP_FILTER", "not available")
	}
	return ok("filters available")
}

func kernelLog(context.Context, Options) []Finding {
	f, err := os.OpenFile("/dev/kmsg", os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return warn("out-of-memory events do not name the killed process", "give the process CAP_SYSLOG and /dev/kmsg", "%v", err)
	}
	f.Close()
	return ok("/dev/kmsg can be read")
}

// The free space should be enough for a model's image and a replica that runs it.
const (
	fewBytes  = 10 << 30
	noBytes   = 1 << 30
	fewMemory = 2 << 30
)

func disk(_ context.Context, o Options) []Finding {
	dir := home(o.Data)
	free, err := diskspace.Free(dir)
	if err != nil {
		return fail("nothing can be stored", "choose another folder with --data", "%s: %v", dir, err)
	}
	found := fmt.Sprintf("%.1f GiB free at %s", float64(free)/(1<<30), dir)
	const mend = "free some space, or choose a folder on a larger disk with --data"
	switch {
	case free < noBytes:
		return fail("images do not fit, and writes in containers fail", mend, "%s", found)
	case free < fewBytes:
		return warn("model images may not fit", mend, "%s", found)
	}
	if err := unix.Access(dir, unix.W_OK); err != nil {
		return fail("nothing can be stored", "run as root, or choose a folder that you own with --data", "%s: %v", dir, err)
	}
	return ok("%s", found)
}

func memory(context.Context, Options) []Finding {
	total, err1 := meminfo("MemTotal:")
	free, err2 := meminfo("MemAvailable:")
	if err := errors.Join(err1, err2); err != nil {
		return warn("", "", "%v", err)
	}
	found := fmt.Sprintf("%.1f of %.1f GiB available", float64(free)/(1<<30), float64(total)/(1<<30))
	if free < fewMemory {
		return warn("model replicas may not fit beside what is running", "stop programs that you do not need", "%s", found)
	}
	return ok("%s", found)
}

func meminfo(name string) (int64, error) {
	v, err := field("/proc/meminfo", name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(v, 10, 64)
	return n << 10, err
}

// fewFiles is a limit on open files below which a busy app can reach it.
const fewFiles = 16 << 10

// openFiles finds how many files and sockets the server can have open, which it raises as far as it may when it starts.
func openFiles(_ context.Context, o Options) []Finding {
	limit, err := fileLimit(o.Running)
	if err != nil {
		return warn("", "", "%v", err)
	}
	of := "the server may raise its limit to"
	if o.Running != 0 {
		of = "the server may have"
	}
	found := fmt.Sprintf("%s %d, enough for about %d requests at a time", of, limit, limit*3/8)
	if limit < fewFiles {
		return warn("beyond that, clients' idle connections are closed and new ones refused",
			"raise the limit: ulimit -Hn, LimitNOFILE of a systemd unit, or fs.nr_open", "%s", found)
	}
	return ok("%s", found)
}

// fileLimit returns the limit of a running server, or what a new one would raise its own to.
func fileLimit(running int) (uint64, error) {
	var limit unix.Rlimit
	if running != 0 {
		err := unix.Prlimit(running, unix.RLIMIT_NOFILE, nil, &limit)
		return limit.Cur, err
	}
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, err
	}
	set, err := effective()
	if err != nil || set&(1<<capSysResource) == 0 {
		return limit.Max, nil
	}
	b, err := os.ReadFile("/proc/sys/fs/nr_open")
	if err != nil {
		return 0, err
	}
	most, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	return max(limit.Max, min(most, 1<<20)), err
}
