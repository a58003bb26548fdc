package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	// saidLines is how many of a failed tool's last lines are shown.
	saidLines = 15
	// saidLimit is how much of a tool's output is kept. A simulation prints four lines per package.
	saidLimit = 8 << 20
)

// excluded are files that containers do not need. Debian's slim images exclude the same
// (github.com/debuerreotype/debuerreotype, .slimify-excludes). Licences are kept.
var excluded = []string{
	"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-include=/usr/share/doc/*/copyright",
	"--dpkgopt=path-exclude=/usr/share/info/*", "--dpkgopt=path-exclude=/usr/share/lintian/*",
	"--dpkgopt=path-exclude=/usr/share/linda/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
	"--dpkgopt=path-exclude=/usr/share/man/*",
}

// proxies are the environment variables that are passed to the tool (apt-transport-http(1)).
var proxies = []string{"http_proxy", "https_proxy", "no_proxy", "all_proxy"}

// mmdebstrap is one run of the tool that installs Debian packages into an empty tree. It runs as root in new user, mount,
// process, IPC and host name namespaces. So the packages' scripts, which run as root inside, have no privileges on the
// machine. It uses the machine's network, because apt needs it.
type mmdebstrap struct {
	args    []string
	suite   string
	sources []string
	onto    io.Reader // tar of the initial tree; nil for an empty one
	proxy   string    // for http
	line    func(string)
}

// run passes the tar that the tool writes to read, and returns the tool's messages.
func (m *mmdebstrap) run(ctx context.Context, read func(tar io.Reader) error) (said string, err error) {
	path, err := exec.LookPath("mmdebstrap")
	if err != nil {
		return "", errors.New("mmdebstrap, which installs Debian packages into a folder, is not on PATH: apt-get install mmdebstrap")
	}
	dir, err := os.MkdirTemp("/var/tmp", "penstock-debian-") // /tmp may be in memory, and trees are large
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	cmd := exec.CommandContext(ctx, path)
	cmd.Args = slices.Concat(cmd.Args, []string{"--mode=root", "--format=tar", "--verbose"}, excluded, m.args)
	cmd.Dir, cmd.Env = dir, environment(dir, m.proxy)
	log := limitedBuffer{line: m.line}
	cmd.Stderr = &log
	copied := make(chan struct{})
	if m.onto != nil {
		r, w, err := os.Pipe()
		if err != nil {
			return "", err
		}
		defer r.Close()
		cmd.ExtraFiles = []*os.File{r} // its file descriptor 3
		cmd.Args = append(cmd.Args, `--setup-hook=tar --extract --directory="$1" <&3`)
		go func() {
			defer close(copied)
			_, _ = io.Copy(w, m.onto) // a tar that ends too soon fails the hook
			_ = w.Close()
		}()
	} else {
		close(copied)
	}
	cmd.Args = append(append(cmd.Args, m.suite, "-"), m.sources...)
	if err := isolate(cmd, dir); err != nil {
		return "", err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	runtime.LockOSThread() // keep the thread: the tool is killed when the thread that started it ends
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("start mmdebstrap in new namespaces: %w", err)
	}
	for _, f := range cmd.ExtraFiles {
		_ = f.Close() // the copy ends when the tool has ended
	}
	bad := read(out)
	if bad != nil {
		_ = cmd.Process.Signal(syscall.SIGKILL) // it may wait for its reader
	}
	_, _ = io.Copy(io.Discard, out) // what a tar's reader leaves after the end
	ended := cmd.Wait()
	<-copied
	switch {
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case bad != nil && !errors.Is(bad, io.ErrUnexpectedEOF):
		return "", bad
	case ended != nil:
		return "", fmt.Errorf("mmdebstrap: %w; last output:\n%s", ended, lastLines(log.String()))
	}
	return log.String(), bad
}

// environment returns the tool's variables. Packages' scripts get none of the user's variables except those for proxies.
func environment(dir, proxy string) []string {
	env := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=" + dir, "TMPDIR=" + dir,
		// The tree is made from nothing if the machine fails, so dpkg need not wait for the disk after each file (dpkg(1)).
		"DPKG_FORCE=unsafe-io",
		"http_proxy=" + proxy, // an option of apt would stay in the tree
		// The tool sets this time on newer files, which identifies files that were created during the build.
		fmt.Sprintf("SOURCE_DATE_EPOCH=%d", time.Now().Unix()),
	}
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); slices.Contains(proxies, strings.ToLower(name)) && strings.ToLower(name) != "http_proxy" {
			env = append(env, v)
		}
	}
	return env
}

func lastLines(said string) string {
	lines := strings.Split(strings.TrimSpace(said), "\n")
	return strings.Join(lines[max(0, len(lines)-saidLines):], "\n")
}

// limitedBuffer keeps the last bytes written to it, and passes each line on.
type limitedBuffer struct {
	line func(string) // may be nil

	kept  bytes.Buffer // not embedded: io.Copy would write to it directly
	begun []byte       // of a line
}

func (b *limitedBuffer) String() string { return b.kept.String() }

// longestLine is how much of a line is passed on.
const longestLine = 1 << 10

func (b *limitedBuffer) Write(p []byte) (int, error) {
	for rest := p; b.line != nil && len(rest) > 0; {
		part, after, ended := bytes.Cut(rest, []byte{'\n'})
		b.begun = append(b.begun, part[:min(len(part), longestLine-len(b.begun))]...)
		if !ended {
			break
		}
		b.line(string(bytes.TrimRight(b.begun, "\r")))
		b.begun, rest = b.begun[:0], after
	}
	if over := b.kept.Len() + len(p) - saidLimit; over > 0 {
		b.kept.Next(over)
	}
	return b.kept.Write(p)
}
