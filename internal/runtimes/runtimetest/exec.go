package runtimetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"penstock/internal/resource"
	"penstock/internal/runtimes"
)

func testExec(t *testing.T, m *machine) {
	rt, ok := m.rt.(runtimes.Execer)
	if !ok {
		t.Skip("this engine runs no commands")
	}
	w := m.workload("web", m.Serve, 1)
	m.apply(t, w)
	r := m.ready(t, w, 1)[0]
	command := func(words ...string) []string { return append(m.Program[:len(m.Program):len(m.Program)], words...) }
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()

	text := strings.Repeat("0123456789abcdef", 20_000) // more than fits into a pipe
	var out, bad bytes.Buffer
	code, err := rt.Exec(ctx, r.Name, "main", runtimes.Exec{Command: command("cat"), Stdin: strings.NewReader(text), Stdout: &out, Stderr: &bad})
	if code != 0 || err != nil || out.String() != text || bad.Len() > 0 {
		t.Errorf("cat: got code %d, %v, %d bytes of %d, %q", code, err, out.Len(), len(text), bad.String())
	}
	out.Reset()
	if code, err := rt.Exec(ctx, r.Name, "main", runtimes.Exec{Command: command("exit", "7"), Stdout: &out, Stderr: &bad}); code != 7 || err != nil {
		t.Errorf("exit 7: got code %d, %v", code, err)
	}

	out.Reset()
	stdin, keyboard := io.Pipe()
	sizes := make(chan runtimes.Size, 1)
	sizes <- runtimes.Size{Width: 132, Height: 43}
	code, err = rt.Exec(ctx, r.Name, "main", runtimes.Exec{Command: command("size"), TTY: true, Stdin: stdin, Stdout: &out, Stderr: &bad, Resize: sizes})
	if got := strings.TrimSpace(out.String()); code != 0 || err != nil || got != "132x43" {
		t.Errorf("size: got code %d, %v, %q", code, err, got)
	}
	keyboard.Close()

	// A client that disconnects ends its command.
	before, err := m.rt.Usage(t.Context(), r.Name)
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		stdin, keyboard = io.Pipe()
		leaving, leave := context.WithCancel(ctx)
		time.AfterFunc(20*time.Millisecond, leave)
		if _, err := rt.Exec(leaving, r.Name, "main", runtimes.Exec{Command: command("cat"), Stdin: stdin, Stdout: io.Discard, Stderr: io.Discard}); err == nil {
			t.Error("a command whose caller has left: want an error")
		}
		keyboard.Close()
	}
	most := before.Processes + 8 // the server may have started threads, which some engines count, but not this many
	if !poll(t, func() bool { u, err := m.rt.Usage(t.Context(), r.Name); return err == nil && u.Processes <= most }) {
		t.Errorf("commands whose callers have left: want them gone, so at most %d processes", most)
	}

	if _, err := rt.Exec(ctx, r.Name, "main", runtimes.Exec{Command: []string{"/nowhere"}, Stdout: &out, Stderr: &bad}); err == nil || errors.Is(err, resource.ErrNotFound) {
		t.Errorf("a program that is not there: want an error that is not about the container, got %v", err)
	}
	for _, target := range [][2]string{{"nobody", "main"}, {r.Name, "nobody"}} {
		if _, err := rt.Exec(ctx, target[0], target[1], runtimes.Exec{Command: command("cat"), Stdout: &out, Stderr: &bad}); !errors.Is(err, resource.ErrNotFound) {
			t.Errorf("%v: want %v, got %v", target, resource.ErrNotFound, err)
		}
	}
	if after := m.ready(t, w, 1)[0]; after.Restarts != 0 {
		t.Errorf("commands ended: want the container to run on, got %+v", after)
	}
}
