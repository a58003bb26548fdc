package operate_test

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"penstock/test/penstocktest"
)

// What `penstock top` says of two replicas under load is what the load's clients count, and what the kernel says.
func TestTop(t *testing.T) {
	m := penstocktest.Boot(t)
	m.Image(t, "hello")
	m.Apply(t, penstocktest.Hello("hello", 2))
	stop := m.Press(t, "hello")
	from := time.Now()
	// The window of the rates must be full of load.
	penstocktest.Until(t, time.Minute, "twelve seconds of load", func() bool { return time.Since(from) > 12*time.Second })
	out := m.Must(t, "top", "-o", "json")
	shown := onTerminal(t, m, "top", "--interval", "1s")
	took := time.Since(from)
	answered, failed, _ := stop().Counts()
	var top struct {
		Apps []struct {
			Name                                                  string
			RequestsPerSecond, ErrorsPerSecond, P50Ms, P95Ms, CPU float64
			MemoryBytes, MemoryLimitBytes                         int64
			Replicas                                              []struct{ RequestsPerSecond, P50Ms, CPU float64 }
		}
	}
	if err := json.Unmarshal([]byte(out), &top); err != nil || len(top.Apps) != 1 || len(top.Apps[0].Replicas) != 2 || failed > 0 {
		t.Fatalf("top says %s (%v), %d requests failed", out, err, failed)
	}
	app, rate := top.Apps[0], float64(answered)/took.Seconds()
	t.Logf("the clients count %.0f requests a second; top says %.0f, p50 %.1f ms, p95 %.1f ms, %.2f vCPU, %d MiB",
		rate, app.RequestsPerSecond, app.P50Ms, app.P95Ms, app.CPU, app.MemoryBytes>>20)
	if app.RequestsPerSecond < rate/2 || app.RequestsPerSecond > 2*rate || app.ErrorsPerSecond != 0 {
		t.Errorf("%.0f requests and %.1f errors a second, want some %.0f and none", app.RequestsPerSecond, app.ErrorsPerSecond, rate)
	}
	if app.P50Ms <= 0 || app.P95Ms < app.P50Ms || app.P95Ms > 5000 {
		t.Errorf("p50 %.1f ms, p95 %.1f ms", app.P50Ms, app.P95Ms)
	}
	// Two replicas of a quarter of a vCPU each.
	if app.CPU <= 0.01 || app.CPU > 0.6 || app.MemoryBytes < 1<<20 || app.MemoryLimitBytes != 1<<30 {
		t.Errorf("%.2f vCPU, %d of %d bytes", app.CPU, app.MemoryBytes, app.MemoryLimitBytes)
	}
	for i, r := range app.Replicas {
		if r.RequestsPerSecond < app.RequestsPerSecond/10 || r.P50Ms <= 0 || r.CPU <= 0 {
			t.Errorf("replica %d: %+v of %.0f requests a second", i, r, app.RequestsPerSecond)
		}
	}
	if pages := strings.Count(shown, "\x1b[H"); pages < 2 || !strings.Contains(shown, "REQ/S") {
		t.Errorf("on a terminal it was shown %d times, want at least twice: %q", pages, shown)
	}
}

// onTerminal runs a command on a terminal of its own until it has shown two pages, and ends it as Ctrl-C does.
func onTerminal(t *testing.T, m *penstocktest.Machine, args ...string) (shown string) {
	t.Helper()
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	n, err := unix.IoctlGetInt(int(terminal.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(terminal.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	inside, err := os.OpenFile(filepath.Join("/dev/pts", fmt.Sprint(n)), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(m.Program, args...)
	cmd.Env = append(os.Environ(), "PENSTOCK_DATA="+m.Data)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = inside, inside, inside
	err = cmd.Start()
	inside.Close()
	if err != nil {
		t.Fatal(err)
	}
	ended := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	defer ended.Stop()
	var page strings.Builder
	buf := make([]byte, 4096)
	for strings.Count(page.String(), "\x1b[J") < 2 {
		n, err := terminal.Read(buf)
		page.Write(buf[:n])
		if err != nil {
			t.Errorf("penstock %s: %v after %q", strings.Join(args, " "), err, page.String())
			break
		}
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Error(err)
	}
	go io.Copy(io.Discard, terminal) // until the other end closes
	if err := cmd.Wait(); err != nil {
		t.Errorf("penstock %s ended by Ctrl-C: %v", strings.Join(args, " "), err)
	}
	return page.String()
}
