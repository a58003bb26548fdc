package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestDrainFinishesWhatIsUnderWay(t *testing.T) {
	p, gate := startGated(t, nil)
	running := p.askLater(1, 0)
	waiting := p.askLater(1, 1)
	p.stop()
	p.logs.wait(t, "draining")
	gate.open(t, 2)
	served(t, running)
	served(t, waiting)
	if err := p.ended(); err != nil {
		t.Errorf("ended with %v, want a clean end", err)
	}
}

func TestDrainHasALimit(t *testing.T) {
	p, _ := startGated(t, map[string]string{"DRAIN_SECONDS": "0.05"})
	stuck := make(chan error, 1)
	go func() {
		_, err := p.open(t.Context(), http.MethodPost, "/v1/chat/completions", question("hi", ""))
		stuck <- err
	}()
	p.until("chat_slots_busy", "1")
	p.stop()
	if err := p.ended(); err == nil || !strings.Contains(err.Error(), "still under way after 50ms") {
		t.Errorf("ended with %v, want that a request was cut", err)
	}
	if err := <-stuck; err == nil {
		t.Error("the request that was cut got an answer")
	}
}

func TestLeak(t *testing.T) {
	p := start(t, map[string]string{"LEAK_BYTES_PER_REQUEST": "1MiB"})
	p.logs.wait(t, "ready")
	for range 3 {
		p.ask("hi", `"max_tokens": 1`)
	}
	if got := p.metric("chat_leaked_bytes"); got != "3145728" {
		t.Errorf("got %s bytes leaked by three requests, want 3145728", got)
	}
}

func TestFaultsThatAreRefused(t *testing.T) {
	p := start(t, map[string]string{"FAULTS": "on"})
	for says, call := range map[string][2]string{
		"code: want an exit code from 0 to 255, got 256": {"/debug/crash", `{"code": 256}`},
		"seconds: want 0 (for ever) to 86400, got -1":    {"/debug/hang", `{"seconds": -1}`},
		"argument supplied: minutes":                     {"/debug/hang", `{"minutes": 1}`},
	} {
		status, _, answer := p.call(http.MethodPost, call[0], call[1])
		if fault, _ := answer["error"].(map[string]any); status != 400 || !strings.Contains(fault["message"].(string), says) {
			t.Errorf("%v: got %d %v, want 400 with %q", call, status, answer, says)
		}
	}
}

// TestHang measures with the fake clock of synctest how long each of those who come waits.
func TestHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFaults()
		took := func(ctx context.Context) (time.Duration, error) {
			start := time.Now()
			err := f.wait(ctx)
			return time.Since(start), err
		}
		if d, err := took(t.Context()); d != 0 || err != nil {
			t.Errorf("no hang: waited %s, %v", d, err)
		}
		f.hangFor(3 * time.Second)
		time.Sleep(time.Second)
		if d, err := took(t.Context()); d != 2*time.Second || err != nil {
			t.Errorf("hang for 3s, after 1s: waited %s, %v, want 2s", d, err)
		}
		if d, err := took(t.Context()); d != 0 || err != nil {
			t.Errorf("after the hang: waited %s, %v", d, err)
		}
		f.hangFor(0)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if d, err := took(ctx); d != time.Hour || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("hang for ever: waited %s, %v, want until the client left", d, err)
		}
	})
}

// child runs the program as a process of its own and returns it with its address.
func child(t *testing.T, extra map[string]string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = []string{asProgram + "=1"}
	for name, value := range fast(t, extra) {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	lines := bufio.NewScanner(out)
	var addr string
	for ready := false; addr == "" || !ready; {
		if !lines.Scan() {
			t.Fatalf("ended before it was ready: %v", lines.Err())
		}
		var line map[string]any
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		switch line["msg"] {
		case "listening":
			_, port, err := net.SplitHostPort(line["addr"].(string))
			if err != nil {
				t.Fatal(err)
			}
			addr = "http://127.0.0.1:" + port
		case "ready":
			ready = true
		}
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	return cmd, addr
}

func TestCrashEndsWithItsCode(t *testing.T) {
	cmd, addr := child(t, map[string]string{"FAULTS": "on", "TIME_TO_FIRST_TOKEN": "10m"})
	cut := make(chan error, 1)
	go func() {
		_, err := http.Post(addr+"/v1/chat/completions", "application/json", strings.NewReader(question("hi", "")))
		cut <- err
	}()
	waitForMetric(t, addr, "chat_slots_busy 1")
	resp, err := http.Post(addr+"/debug/crash", "application/json", strings.NewReader(`{"code": 42}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		t.Errorf("got %d, want 202", resp.StatusCode)
	}
	if exit, ok := errors.AsType[*exec.ExitError](cmd.Wait()); !ok || exit.ExitCode() != 42 {
		t.Errorf("ended with %v, want exit code 42", exit)
	}
	if err := <-cut; err == nil {
		t.Error("a request under way was answered")
	}
}

func waitForMetric(t *testing.T, addr, line string) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		resp, err := http.Get(addr + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(raw), "\n"+line+"\n") {
			return
		}
	}
	t.Fatalf("no %q within %s", line, patience)
}

func TestSIGTERMEndsWithZero(t *testing.T) {
	cmd, _ := child(t, nil)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("got %v, want exit code 0", err)
	}
}

// TestHungProcessNeedsSIGKILL shows that a hanging server takes connections, answers nothing and does not hear SIGTERM.
func TestHungProcessNeedsSIGKILL(t *testing.T) {
	cmd, addr := child(t, map[string]string{"FAULTS": "on", "DRAIN_SECONDS": "0"})
	resp, err := http.Post(addr+"/debug/hang", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()

	conn, err := net.Dial("tcp", strings.TrimPrefix(addr, "http://"))
	if err != nil {
		t.Fatalf("a TCP probe should still succeed: %v", err)
	}
	defer conn.Close()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	// A quarter of a second without an answer, and the connection still open, is what a probe sees too.
	if _, err := io.WriteString(conn, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(250 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("health: got %d bytes, %v, want silence", n, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if exit, ok := errors.AsType[*exec.ExitError](cmd.Wait()); !ok || !exit.Sys().(syscall.WaitStatus).Signaled() {
		t.Errorf("ended with %v before SIGKILL", exit)
	}
}
