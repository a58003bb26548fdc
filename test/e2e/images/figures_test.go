package images_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"penstock/test/penstocktest"
)

// The image that is moved: a layer of weights and one of code, which changes.
const (
	weightsBytes = 1_175_000_000
	codeBytes    = 2_600_000
)

// counter leads connections to an address and counts what passes, both ways, as it stands on the wire. After cutAt bytes
// it ends the connections there are, once.
type counter struct {
	addr  string
	bytes atomic.Int64
	cutAt atomic.Int64
	mu    sync.Mutex
	open  []net.Conn
}

func count(t *testing.T, to string) *counter {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &counter{addr: l.Addr().String()}
	var wg sync.WaitGroup
	t.Cleanup(func() { l.Close(); c.cut(); wg.Wait() })
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := (&net.Dialer{}).DialContext(context.WithoutCancel(t.Context()), "tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			c.mu.Lock()
			c.open = append(c.open, in, out)
			c.mu.Unlock()
			wg.Go(func() { c.pass(out, in) })
			wg.Go(func() { c.pass(in, out) })
		}
	})
	return c
}

func (c *counter) pass(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if total, at := c.bytes.Add(int64(n)), c.cutAt.Load(); at > 0 && total > at && c.cutAt.CompareAndSwap(at, 0) {
			c.cut()
		}
		if err != nil {
			return
		}
	}
}

func (c *counter) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.open {
		conn.Close()
	}
	c.open = nil
}

func (c *counter) take() int64 { return c.bytes.Swap(0) }

// TestImageFigures measures what moving an image costs. make bench-images runs it.
func TestImageFigures(t *testing.T) {
	if os.Getenv("PENSTOCK_FIGURES") == "" {
		t.Skip("measures for minutes: make bench-images")
	}
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skip("skopeo is not installed")
	}
	dir := t.TempDir()
	fill := func(name string, n int64, seed byte) {
		f, err := os.Create(filepath.Join(dir, name))
		if err == nil {
			_, err = io.CopyN(f, rand.NewChaCha8([32]byte{seed}), n)
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	manifest := "layers:\n  - {name: weights, from: weights, to: /weights, compression: none}\n  - {name: code, from: code, to: /code, compression: none}\nentrypoint: [/code]\n"
	if err := os.WriteFile(filepath.Join(dir, "image.yaml"), []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	fill("weights", weightsBytes, 1)
	fill("code", codeBytes, 2)
	t.Setenv("XDG_CACHE_HOME", filepath.Join(dir, "cache"))

	a := penstocktest.Boot(t)
	to := a.API(t)
	t.Setenv("PENSTOCK_REGISTRY_CA", filepath.Join(a.Data, "pki", "ca.pem"))
	b := penstocktest.Boot(t)
	wire := count(t, strings.TrimPrefix(to.Endpoint, "https://"))

	said := func(what string, took time.Duration, moved, of int64, more string) {
		t.Logf("%-58s %7.2f s %14d bytes %7.4f x %s", what, took.Seconds(), moved, float64(moved)/float64(max(of, 1)), more)
	}
	type result struct{ HashedBytes, MovedBytes int64 }
	build := func(tag string) (time.Duration, result, error) {
		cmd := exec.CommandContext(t.Context(), a.Program, "build", "-t", "team/model:"+tag, dir, "-o", "json")
		cmd.Env = append(os.Environ(), "PENSTOCK_ENDPOINT=https://"+wire.addr, "PENSTOCK_TOKEN="+to.Token, "PENSTOCK_CA="+filepath.Join(a.Data, "pki", "ca.pem"))
		var out, bad bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &bad
		began := time.Now()
		err := cmd.Run()
		took := time.Since(began)
		var r result
		if err == nil {
			err = json.Unmarshal(out.Bytes(), &r)
		} else {
			err = fmt.Errorf("%w: %s", err, bad.String())
		}
		return took, r, err
	}
	pull := func(tag string) time.Duration {
		body := fmt.Sprintf(`{"image":"%s/team/model:%s","username":"x","password":%q}`, wire.addr, tag, to.Token)
		other := b.API(t)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, other.Endpoint+"/penstock/v1/pulls", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+other.Token)
		began := time.Now()
		resp, err := (&http.Client{Transport: other.Client.Transport}).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		if err != nil || !bytes.Contains(answer, []byte(`"tookMs"`)) {
			t.Fatalf("pull: %v, %s", err, answer)
		}
		return time.Since(began)
	}
	copyBy := func(args ...string) time.Duration {
		began := time.Now()
		out, err := exec.CommandContext(t.Context(), skopeo, append([]string{"--insecure-policy", "--tmpdir", dir, "copy"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("skopeo %v: %v\n%s", args, err, out)
		}
		return time.Since(began)
	}
	const image = weightsBytes + codeBytes
	highest := func(m *penstocktest.Machine) string {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.Role(t, "control")))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(status), "VmHWM:")
		line, _, _ := strings.Cut(rest, "\n")
		return "highest RSS of control" + line
	}

	cat := exec.CommandContext(t.Context(), "sh", "-c", "cat weights > copy && sync copy && rm copy")
	cat.Dir = dir
	began := time.Now()
	if out, err := cat.CombinedOutput(); err != nil {
		t.Fatalf("cat: %v, %s", err, out)
	}
	said("cat of the weights to the disk, synced", time.Since(began), weightsBytes, weightsBytes, "")
	must := func(took time.Duration, r result, err error) (time.Duration, result) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return took, r
	}
	took, r := must(build("1"))
	said("penstock build and push, all of it new", took, wire.take(), image, fmt.Sprintf("%.0f MB/s, %s", image/took.Seconds()/1e6, highest(a)))
	took, r = must(build("1"))
	said("penstock build, nothing changed", took, wire.take(), image, fmt.Sprintf("%d bytes hashed", r.HashedBytes))
	took = pull("1")
	said("pull into another server, all of it", took, wire.take(), image, highest(b))
	fill("code", codeBytes, 3)
	took, r = must(build("2"))
	said("penstock build and push, code changed", took, wire.take(), codeBytes, fmt.Sprintf("%d bytes hashed", r.HashedBytes))
	took = pull("2")
	said("pull into another server, code changed", took, wire.take(), codeBytes, "")

	login := []string{"--src-creds", "x:" + to.Token, "--src-tls-verify=false"}
	took = copyBy(append(login, "docker://"+wire.addr+"/team/model:1", "oci:"+filepath.Join(dir, "skopeo")+":1")...)
	said("skopeo copy to a folder, all of it", took, wire.take(), image, "")
	took = copyBy(append(login, "docker://"+wire.addr+"/team/model:2", "oci:"+filepath.Join(dir, "skopeo")+":2")...)
	said("skopeo copy to a folder, code changed", took, wire.take(), codeBytes, "")
	login = []string{"--dest-creds", "x:" + to.Token, "--dest-tls-verify=false"}
	a.Must(t, "image", "delete", "team/model:1")
	a.Must(t, "image", "delete", "team/model:2")
	penstocktest.Until(t, time.Minute, "the deleted images' layers go", func() bool { return size(t, filepath.Join(a.Data, "containerd")) < weightsBytes })
	took = copyBy(append(login, "oci:"+filepath.Join(dir, "skopeo")+":1", "docker://"+wire.addr+"/team/model:1")...)
	said("skopeo copy to the registry, all of it", took, wire.take(), image, highest(a))
	took = copyBy(append(login, "oci:"+filepath.Join(dir, "skopeo")+":2", "docker://"+wire.addr+"/team/model:2")...)
	said("skopeo copy to the registry, code changed", took, wire.take(), codeBytes, "")

	// Cut off at 60 %.
	fill("weights", weightsBytes, 4)
	wire.cutAt.Store(image * 6 / 10)
	took, _ = must(build("3"))
	moved := wire.take()
	said("push cut off at 60 %, which goes on by itself", took, moved, image, fmt.Sprintf("%d bytes sent again", moved-image))
	wire.cutAt.Store(image * 6 / 10)
	took = pull("3")
	moved = wire.take()
	said("pull cut off at 60 %, which goes on by itself", took, moved, image, fmt.Sprintf("%d bytes sent again", moved-image))
}

// size is what a folder's files weigh.
func size(t *testing.T, dir string) (n int64) {
	t.Helper()
	_ = filepath.Walk(dir, func(_ string, info os.FileInfo, err error) error { // files come and go meanwhile
		if err == nil && info.Mode().IsRegular() {
			n += info.Size()
		}
		return nil
	})
	return n
}
