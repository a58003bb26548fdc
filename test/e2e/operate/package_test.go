package operate_test

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The Debian package has what its unit starts, and that tells a service manager when it serves and when it stops.
func TestPackage(t *testing.T) {
	for _, program := range []string{"dpkg-deb", "dpkg", "git"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is missing", program)
		}
	}
	for _, program := range []string{"penstock", "runc", "containerd-shim-runc-v2"} {
		if _, err := os.Stat("../../../bin/" + program); err != nil {
			t.Skipf("bin/%s is missing: make build", program)
		}
	}
	dir := t.TempDir()
	pack := exec.Command("../../../scripts/deb.sh", filepath.Join(dir, "out"))
	pack.Stderr = t.Output()
	out, err := pack.Output()
	if err != nil {
		t.Fatalf("scripts/deb.sh: %v", err)
	}
	file := strings.TrimSpace(string(out))
	root := filepath.Join(dir, "root")
	if out, err := exec.Command("dpkg-deb", "--raw-extract", file, root).CombinedOutput(); err != nil {
		t.Fatalf("unpack: %v: %s", err, out)
	}
	control, err := os.ReadFile(filepath.Join(root, "DEBIAN", "control"))
	if err != nil || !regexp.MustCompile(`(?s)^Package: penstock\nVersion: \d\S*\n.*Depends: e2fsprogs\n`).Match(control) {
		t.Errorf("control: %s %v", control, err)
	}
	for _, script := range []string{"postinst", "prerm", "postrm"} {
		if out, err := exec.Command("sh", "-n", filepath.Join(root, "DEBIAN", script)).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", script, err, out)
		}
	}

	completion, err := os.ReadFile(filepath.Join(root, "usr/share/bash-completion/completions/penstock"))
	if err != nil || !strings.Contains(string(completion), "bash completion V2 for penstock") {
		t.Errorf("completion of bash: %.80s, %v", completion, err)
	}

	// Every path that the unit and the maintainer scripts name is in the package.
	unit, err := os.ReadFile(filepath.Join(root, "lib/systemd/system/penstock.service"))
	if err != nil {
		t.Fatal(err)
	}
	start := regexp.MustCompile(`(?m)^ExecStart=(.*)$`).FindSubmatch(unit)
	for _, setting := range []string{"Type=notify", "KillMode=process", "Delegate=yes", "Restart=on-failure", "WantedBy=multi-user.target"} {
		if !strings.Contains(string(unit), "\n"+setting+"\n") {
			t.Errorf("the unit has no %s", setting)
		}
	}
	if start == nil {
		t.Fatalf("no ExecStart in %s", unit)
	}
	command := strings.Fields(string(start[1]))
	for i, word := range command {
		if strings.HasPrefix(word, "/") {
			command[i] = filepath.Join(root, word)
			if _, err := os.Stat(command[i]); err != nil {
				t.Errorf("the unit names %v", err)
			}
		}
	}
	if path, err := filepath.EvalSymlinks(filepath.Join(root, "usr/bin/penstock")); err != nil || path != command[0] {
		t.Errorf("usr/bin/penstock leads to %s, %v; want %s", path, err, command[0])
	}

	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	data := filepath.Join(dir, "d")
	server := exec.Command(command[0], append(command[1:], "--data", data, "--run", filepath.Join(dir, "r"), "--runtime", "fake",
		"--http", "127.0.0.1:0", "--https", "127.0.0.1:0", "--arm", "127.0.0.1:0")...)
	server.Env = append(os.Environ(), "NOTIFY_SOCKET="+filepath.Join(dir, "notify"))
	said, err := server.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	logged := make(chan struct{})
	go func() {
		defer close(logged)
		for lines := bufio.NewScanner(said); lines.Scan(); {
			t.Log(lines.Text())
		}
	}()
	told := func(want string) {
		t.Helper()
		buf := make([]byte, 256)
		if err := manager.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if n, err := manager.Read(buf); err != nil || string(buf[:n]) != want {
			t.Errorf("the service manager is told %q, %v; want %s", buf[:n], err, want)
		}
	}
	told("READY=1")
	if _, err := os.Stat(filepath.Join(data, "client.json")); err != nil {
		t.Errorf("when it is said to be ready: %v", err)
	}
	if err := server.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	told("STOPPING=1")
	<-logged
	if err := server.Wait(); err != nil {
		t.Errorf("the server ended by SIGTERM with %v, which a service manager takes for a fault", err)
	}
}
