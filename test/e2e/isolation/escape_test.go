package isolation_test

import (
	"archive/tar"
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"penstock/internal/supervisor"
	"penstock/test/penstocktest"
)

// attempt is a way out that a container's root tries.
type attempt struct {
	what   string
	method string
	path   string // that hello is asked
	said   string // part of what hello must answer; the kernel's words
	by     string // what stops it
}

// processLimit is how many processes and threads a container may have.
const processLimit = 4096

// TestEscape lets a program that is root in its container try to get out, from the worst image there could be, and
// prints what it tried and what stopped it.
func TestEscape(t *testing.T) {
	m := penstocktest.Boot(t)
	m.Image(t, "hello")
	// Two files of the host that anybody could read and write: one to be seen, one to be changed.
	dir := filepath.Dir(m.Data)
	prize, target := filepath.Join(dir, "prize"), filepath.Join(dir, "target")
	for _, path := range []string{prize, target} {
		if err := os.WriteFile(path, []byte("secret\n"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	folder := shares(t, m)
	m.Environment(t, "far")
	pushThief(t, m, prize, target)
	m.Apply(t, penstocktest.Neighbour("victim", "", true))
	m.Apply(t, strings.Replace(penstocktest.Neighbour("away", "far", true), "targetPort: 8080,", "targetPort: 8080, additionalPortMappings: [{external: false, targetPort: 9090}],", 1))
	m.Apply(t, thiefManifest())
	if status, answer := m.Ask(t, http.MethodGet, "thief", "/file?path=/proc/self/status", ""); status != http.StatusOK || !strings.Contains(answer, "\nUid:\t0\t0\t0\t0\n") {
		t.Fatalf("the thief is not root in its container: %d %s", status, answer)
	}
	kept := func() {
		t.Helper()
		if b, err := os.ReadFile(target); err != nil || string(b) != "secret\n" {
			t.Errorf("the host's file is %q now (%v)", b, err)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 3 { // both files, and the data folder
			t.Errorf("the host's folder has %v (%v)", entries, err)
		}
		for _, app := range []string{"victim", "away." + domainOf(t, m, "away")} {
			if status, answer := m.Ask(t, http.MethodGet, app, "/", ""); status != http.StatusOK {
				t.Errorf("%s suffers: %d %s", app, status, answer)
			}
		}
	}
	// Several at a time, because what the firewall drops waits for its time limit.
	list := attempts(t, m, prize)
	statuses, answers := make([]int, len(list)), make([]string, len(list))
	var wg sync.WaitGroup
	places := make(chan struct{}, 8)
	for i, a := range list {
		wg.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			statuses[i], answers[i] = m.Ask(t, a.method, "thief", a.path, "")
		})
	}
	wg.Wait()
	for i, a := range list {
		status, answer := statuses[i], strings.TrimSpace(answers[i])
		t.Logf("%-48s %-62q stopped by %s", a.what, shorten(answer), a.by)
		if status == http.StatusOK || !strings.Contains(answer, a.said) {
			t.Errorf("%s: %d %q, want a refusal that says %q", a.what, status, answer, a.said)
		}
	}
	kept()
	linkOut(t, m, folder)

	bombs := []struct{ what, path, told, by string }{
		{"disk bomb: 4 GiB into /tmp", "/write?mb=4096&path=/tmp/bomb", "no space left on device", "the replica's own disk image of its ephemeral storage"},
		{"memory bomb: 4 GiB", "/eat?mb=4096", "", "the memory limit: the kernel kills, the event says OOMKilled"},
		{"fork bomb: 5,000 threads", "/threads?n=5000", "", "the pids limit"},
	}
	for _, bomb := range bombs {
		from := time.Now()
		most := mostProcesses(t, m, "thief")
		status, answer := m.Ask(t, http.MethodPost, "thief", bomb.path, "")
		t.Logf("%-48s %-62q stopped by %s", bomb.what, shorten(strings.TrimSpace(answer)), bomb.by)
		if status == http.StatusOK || !strings.Contains(answer, bomb.told) {
			t.Errorf("%s: %d %q", bomb.what, status, answer)
		}
		kept()
		// It starts again by itself; the second time after ten seconds.
		penstocktest.Until(t, 2*time.Minute, "the thief is back after the "+bomb.what, func() bool {
			status, _ := m.Ask(t, http.MethodGet, "thief", "/", "")
			return status == http.StatusOK
		})
		processes := most()
		t.Logf("%-48s everybody answers %s later; at most %d threads", "", time.Since(from).Round(time.Millisecond), processes)
		if strings.HasPrefix(bomb.what, "fork") != (processes == processLimit) || processes > processLimit {
			t.Errorf("%s: %d threads at most; the limit is %d", bomb.what, processes, processLimit)
		}
	}
	if events := m.Must(t, "app", "events", "thief"); !strings.Contains(events, "OOMKilled") {
		t.Errorf("events have no OOMKilled:\n%s", events)
	}
}

// mostProcesses watches how many processes and threads the containers of an app have, until most is called, which says
// how many there were at most.
func mostProcesses(t *testing.T, m *penstocktest.Machine, app string) (most func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	peak := make(chan int, 1)
	go func() {
		highest := 0
		for ctx.Err() == nil {
			for _, root := range []string{"/sys/fs/cgroup/pids", "/sys/fs/cgroup"} {
				files, _ := filepath.Glob(filepath.Join(root, "penstock-"+m.Status.Instance, "replicas", app+"--*", "*", "pids.current"))
				for _, file := range files {
					b, _ := os.ReadFile(file) // a container that has ended meanwhile has none
					n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
					highest = max(highest, n)
				}
			}
			time.Sleep(5 * time.Millisecond)
		}
		peak <- highest
	}()
	return func() int {
		cancel()
		return <-peak
	}
}

func shorten(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line[:min(len(line), 60)]
}

// domainOf is where the hosts of an app's environment are, below the server's own domain.
func domainOf(t *testing.T, m *penstocktest.Machine, environment string) string {
	t.Helper()
	return strings.TrimSuffix(m.Environment(t, map[string]string{"away": "far"}[environment]), ".penstock.localhost")
}

func attempts(t *testing.T, m *penstocktest.Machine, prize string) []attempt {
	t.Helper()
	far := "away." + domainOf(t, m, "away")
	gateway, other := m.Gateway(t, "thief"), m.Gateway(t, far)
	victim, away := addressOf(t, m, "victim"), addressOf(t, m, far)
	api, err := url.Parse(m.API(t).Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	private := supervisor.Private(m.Status.Instance).String()
	var pid string // of the victim, on the host
	for replica, pids := range m.Processes(t) {
		if strings.HasPrefix(replica, "victim--") {
			pid = strings.Fields(pids)[0]
		}
	}
	if pid == "" {
		t.Fatal("the victim has no process")
	}

	const (
		refused = "connection refused"
		denied  = "operation not permitted"
		absent  = "no such file or directory"
		fixed   = "read-only file system"
	)
	var list []attempt
	dial := func(what, host, port, said, by string) {
		list = append(list, attempt{"reach " + what, http.MethodGet, "/dial?to=" + net.JoinHostPort(host, port), said, by})
	}
	rules := "the firewall's rule set"
	dial("another replica of its environment", victim, "8080", "", "isolated ports of the bridge")
	dial("a replica of another environment", away, "8080", "", rules)
	dial("the management API on its gateway", gateway, api.Port(), "", rules)
	dial("the public listener on its gateway", gateway, strconv.Itoa(m.Status.HTTPPort), "", rules)
	dial("the ingress on another environment's gateway", other, "80", "", rules)
	dial("the resolver on another environment's gateway", other, "53", "", rules)
	dial("a TCP port of another environment's app on that gateway", other, "9090", "", rules)
	dial("a TCP port of another environment's app on its gateway", gateway, "9090", "", rules)
	dial("the management API on the host's loopback", "127.0.0.1", api.Port(), refused, "its own network namespace: loopback is its own")
	dial("the host's SSH on its gateway", gateway, "22", "", rules)
	for _, host := range hostAddresses(t, private) {
		dial("the management API on the host's "+host, host, api.Port(), "", rules)
	}
	dial("the address where the ingress listens", private, api.Port(), "", rules)

	read := func(what, path, said, by string) {
		list = append(list, attempt{"read " + what, http.MethodGet, "/file?path=" + url.QueryEscape(path), said, by})
	}
	mounts := "its own mount namespace and root"
	read("a file of the host", prize, absent, mounts)
	read("a file of the host by ../", "/../../../../../.."+prize, absent, mounts)
	read("the server's token", filepath.Join(m.Data, "token"), absent, mounts)
	read("another replica's root by its pid", "/proc/"+pid+"/root/hello", absent, "its own pid namespace")
	read("the kernel's memory", "/proc/kcore", "", "masked path")
	read("the kernel's log", "/dev/kmsg", absent, "its own /dev")
	read("through a symlink of its image to the host", "/link-to-prize", absent, mounts)

	write := func(what, path, said, by string) {
		list = append(list, attempt{"write " + what, http.MethodPost, "/write?mb=0&path=" + url.QueryEscape(path), said, by})
	}
	write("/proc/sysrq-trigger", "/proc/sysrq-trigger", "", "read-only paths of /proc")
	for _, path := range []string{"/proc/sys/kernel/core_pattern", "/proc/sys/net/ipv4/ip_forward"} {
		write(path, path, fixed, "read-only paths of /proc")
	}
	write("/sys/kernel/uevent_helper", "/sys/kernel/uevent_helper", "", "/sys is bound read-only")
	write("a cgroup's limit", "/sys/fs/cgroup/memory/memory.limit_in_bytes", "", "/sys is bound read-only")

	const locked = "a mount of the machine's root, read-only"
	write("a storage that is ReadOnly", "/readonly/new", fixed, locked)
	write("a secret", "/keys/password", fixed, locked)
	write("a secret's folder", "/keys/..data/new", fixed, locked)
	read("a device in a storage", "/models/device", "permission denied", "nodev")
	read("a file of the host by a link in a storage", "/models/link", absent, mounts)
	read("a file of the host by ../ of a storage", "/models/../../../../../.."+prize, absent, mounts)

	try := func(what, query, said, by string) {
		list = append(list, attempt{what, http.MethodPost, "/try?" + query, said, by})
	}
	q := func(pairs ...string) string {
		v := url.Values{}
		for i := 0; i < len(pairs); i += 2 {
			v.Set(pairs[i], pairs[i+1])
		}
		return v.Encode()
	}
	capability := "no CAP_SYS_ADMIN, seccomp"
	try("mount a tmpfs", q("what", "mount tmpfs"), denied, capability)
	try("mount a proc", q("what", "mount proc"), denied, capability)
	try("bind a folder over another", q("what", "bind", "path", "/etc"), denied, capability)
	try("remount /sys for writing", q("what", "remount", "path", "/sys"), denied, capability)
	try("unmount a mask of /proc", q("what", "unmount", "path", "/proc/kcore"), denied, capability)
	try("make a device of the host's disk", q("what", "mknod"), denied, "user namespace: CAP_MKNOD reaches no device")
	try("make a device in a storage", q("what", "mknod", "path", "/models/disk"), denied, "user namespace: CAP_MKNOD reaches no device")
	try("link a file of its root into a storage", q("what", "hard link", "path", "/models/hello"), "invalid cross-device link", "its own mount")
	try("remount a storage for writing", q("what", "remount", "path", "/readonly"), denied, capability)
	try("unmount a storage", q("what", "unmount", "path", "/models"), denied, capability)
	try("a new user namespace", q("what", "unshare"), denied, "seccomp")
	try("trace another replica's process", q("what", "ptrace", "pid", pid), "no such process", "its own pid namespace")
	try("kill another replica's process", q("what", "kill", "pid", pid), "no such process", "its own pid namespace")
	try("a raw socket", q("what", "raw socket"), denied, "user namespace: the network namespace is the host's")
	try("a packet socket", q("what", "packet socket"), denied, "user namespace: the network namespace is the host's")
	try("change the host's name", q("what", "hostname"), denied, capability)
	try("reboot", q("what", "reboot"), denied, "no CAP_SYS_BOOT, seccomp")
	try("read the host's disk", q("what", "read device", "path", "/dev/vda"), absent, "its own /dev")
	return list
}

// thiefManifest is the thief with a volume of each kind.
func thiefManifest() string {
	return strings.NewReplacer(
		"hello:1", "thief:1",
		"    ingress:", "    secrets: [{name: password, value: xyz}]\n    ingress:",
		"        resources:", "        volumeMounts: [{volumeName: models, mountPath: /models}, {volumeName: readonly, mountPath: /readonly}, {volumeName: keys, mountPath: /keys}]\n        resources:",
		"    scale:", `    volumes:
      - {name: models, storageType: AzureFile, storageName: models}
      - {name: readonly, storageType: NfsAzureFile, storageName: readonly}
      - {name: keys, storageType: Secret}
    scale:`,
	).Replace(penstocktest.Neighbour("thief", "", true))
}

// shares makes two storages, and returns the folder of the one that may be written to, with what a foolish operator has
// left there.
func shares(t *testing.T, m *penstocktest.Machine) (folder string) {
	t.Helper()
	key := m.File(t, "a2V5")
	m.Must(t, "env", "storage", "set", "default", "models", "--access-mode", "ReadWrite", "--azure-file-account-name", "models",
		"--azure-file-share-name", "all", "--azure-file-account-key-file", key)
	m.Must(t, "env", "storage", "set", "default", "readonly", "--storage-type", "NfsAzureFile", "--access-mode", "ReadOnly",
		"--server", "files.example", "--azure-file-share-name", "/all")
	folder = filepath.Join(m.Data, "storages", "00000000-0000-0000-0000-000000000000", "default", "default", "models")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	const null = 1<<8 | 3
	if err := syscall.Mknod(filepath.Join(folder, "device"), syscall.S_IFCHR|0o666, null); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(filepath.Join(folder, "device"), 0o666), os.Symlink(m.Data+"/token", filepath.Join(folder, "link"))); err != nil {
		t.Fatal(err)
	}
	return folder
}

// linkOut has an app mount what a program has made of a part of a storage, which leads no mount out of it, and looks at
// what was written there from outside.
func linkOut(t *testing.T, m *penstocktest.Machine, folder string) {
	t.Helper()
	if status, answer := m.Ask(t, http.MethodPost, "thief", "/write?mb=0&path=/models/mine", ""); status != http.StatusOK {
		t.Errorf("write to a storage: %d %s", status, answer)
	}
	info, err := os.Stat(filepath.Join(folder, "mine"))
	if err != nil || info.Sys().(*syscall.Stat_t).Uid != 0 {
		t.Errorf("what root has written to a storage: %+v, %v", info, err)
	}
	// What root leaves there may be set-user-id: nobody else gets as far.
	if info, err := os.Stat(filepath.Join(m.Data, "storages")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder of storages: %v, %v", info.Mode(), err)
	}
	for sub, want := range map[string]string{"link": "symbolic link", "link/x": "symbolic link", "device": "want a folder or a file"} {
		manifest := strings.ReplaceAll(strings.Replace(thiefManifest(), "mountPath: /models", "mountPath: /models, subPath: "+sub, 1), "name: thief\n", "name: thief2\n")
		_, said, code := m.Run(t, "up", "-f", m.File(t, manifest))
		t.Logf("%-48s %-62q stopped by %s", "mount "+sub+" of a storage", want, "a walk that follows no link")
		if code == 0 || !strings.Contains(said, want) {
			t.Errorf("subPath %s: exit %d\n%s", sub, code, said)
		}
		m.Run(t, "app", "delete", "thief2")
	}
}

// addressOf is a replica's own address, as its container has it.
func addressOf(t *testing.T, m *penstocktest.Machine, app string) string {
	t.Helper()
	status, hosts := m.Ask(t, http.MethodGet, app, "/file?path=/etc/hosts", "")
	lines := strings.Split(strings.TrimSpace(hosts), "\n")
	fields := strings.Fields(lines[len(lines)-1])
	if status != http.StatusOK || len(fields) != 2 || net.ParseIP(fields[0]) == nil {
		t.Fatalf("hosts of %s: %d %q", app, status, hosts)
	}
	return fields[0]
}

// hostAddresses are those of the machine's own networks.
func hostAddresses(t *testing.T, except string) []string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, a := range addrs {
		ip, _, err := net.ParseCIDR(a.String())
		if err == nil && ip.To4() != nil && !ip.IsLoopback() && ip.String() != except && ip.To4()[0] != 10 {
			list = append(list, ip.String())
		}
	}
	return list
}

// pushThief pushes an image that does all that a layer must not: paths out of its root, links to a file of the host,
// and links where the runtime puts files of its own.
func pushThief(t *testing.T, m *penstocktest.Machine, prize, target string) {
	t.Helper()
	program, err := os.ReadFile("../../../examples/hello/bin/hello")
	if err != nil {
		t.Fatal(err)
	}
	up := strings.Repeat("../", 20)
	honest := penstocktest.Layer(t,
		penstocktest.LayerFile{Header: tar.Header{Name: "hello", Mode: 0o755, Typeflag: tar.TypeReg}, Body: program},
		penstocktest.LayerFile{Header: tar.Header{Name: "tmp/", Mode: 0o777, Typeflag: tar.TypeDir}},
	)
	inside := strings.TrimPrefix(target, "/")
	wicked := penstocktest.Layer(t,
		penstocktest.LayerFile{Header: tar.Header{Name: up + inside, Mode: 0o666, Typeflag: tar.TypeReg}, Body: []byte("stolen\n")},
		penstocktest.LayerFile{Header: tar.Header{Name: target + ".absolute", Mode: 0o666, Typeflag: tar.TypeReg}, Body: []byte("stolen\n")},
		penstocktest.LayerFile{Header: tar.Header{Name: "door", Linkname: filepath.Dir(target), Typeflag: tar.TypeSymlink}},
		penstocktest.LayerFile{Header: tar.Header{Name: "door/target", Mode: 0o666, Typeflag: tar.TypeReg}, Body: []byte("stolen\n")},
		penstocktest.LayerFile{Header: tar.Header{Name: "door/new", Mode: 0o666, Typeflag: tar.TypeReg}, Body: []byte("stolen\n")},
		penstocktest.LayerFile{Header: tar.Header{Name: "link-to-prize", Linkname: up + strings.TrimPrefix(prize, "/"), Typeflag: tar.TypeSymlink}},
		// What is bound into every container must not be bound over what these lead to.
		penstocktest.LayerFile{Header: tar.Header{Name: "etc/hosts", Linkname: target, Typeflag: tar.TypeSymlink}},
		penstocktest.LayerFile{Header: tar.Header{Name: "etc/hostname", Linkname: up + inside, Typeflag: tar.TypeSymlink}},
	)
	push := func(ref string, layers ...v1.Layer) error {
		img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
			OS: "linux", Architecture: runtime.GOARCH, RootFS: v1.RootFS{Type: "layers"}, Config: v1.Config{Entrypoint: []string{"/hello"}},
		})
		if err == nil {
			img, err = mutate.AppendLayers(img, layers...)
		}
		if err != nil {
			t.Fatal(err)
		}
		to := m.API(t)
		tag, err := name.ParseReference(strings.TrimPrefix(to.Endpoint, "https://") + "/" + ref)
		if err != nil {
			t.Fatal(err)
		}
		return remote.Write(tag, img, remote.WithTransport(to.Client.Transport), remote.WithContext(t.Context()),
			remote.WithAuth(&authn.Basic{Username: "x", Password: to.Token}))
	}
	if err := push("thief:1", honest, wicked); err != nil {
		t.Fatal(err)
	}
	// A hard link to what is not in the image cannot be made at all, so its image never starts.
	if err := push("linked:1", honest, penstocktest.Layer(t, penstocktest.LayerFile{Header: tar.Header{Name: "hard-link-to-prize", Linkname: up + strings.TrimPrefix(prize, "/"), Typeflag: tar.TypeLink}})); err != nil {
		t.Fatal(err)
	}
	_, said, code := m.Run(t, "up", "-f", m.File(t, strings.ReplaceAll(penstocktest.Neighbour("linked", "", true), "hello:1", "linked:1")))
	t.Logf("%-48s %-62q stopped by %s", "an image with a hard link to the host", shorten(said[max(0, strings.Index(said, "hard-link")-20):]), "unpacking below the image's root")
	if code == 0 || !strings.Contains(said, "hard-link-to-prize") {
		status, answer := m.Ask(t, http.MethodGet, "linked", "/file?path=/hard-link-to-prize", "")
		t.Errorf("an image with a hard link to a file of the host: exit %d, reads %d %q\n%s", code, status, answer, said)
	}
	m.Run(t, "app", "delete", "linked")
}
