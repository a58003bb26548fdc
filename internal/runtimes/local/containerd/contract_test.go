package containerd_test

import (
	"context"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"penstock/internal/resource"
	"penstock/internal/runtimes"
	"penstock/internal/runtimes/local"
	"penstock/internal/runtimes/runtimetest"
)

func TestContract(t *testing.T) {
	runtimetest.Run(t, func(t testing.TB) *runtimetest.Subject {
		l := newLab(t)
		const memory = 1 << 30
		serve := l.push(nil)
		deaf := l.push(func(c *v1.Config) { c.Cmd = []string{"deaf"} })
		exit := l.push(func(c *v1.Config) { c.Cmd = []string{"exit", "3"} })
		done := l.push(func(c *v1.Config) { c.Cmd = []string{"exit", "0"} })
		write := l.push(func(c *v1.Config) { c.Entrypoint = []string{"/hello", "write"} })
		l.close()
		return &runtimetest.Subject{
			Start: func(t testing.TB) (runtimes.Runtime, func()) {
				l.open()
				return l.engine(local.Capacity{Memory: memory})
			},
			Serve: serve, Deaf: deaf, Exit: exit, Done: done, Write: write, Program: []string{"/hello"}, Missing: "nobody/none:1", Port: 8080, Memory: memory, Standbys: 2,
			Crash: func(t testing.TB, r resource.Replica) {
				if err := syscall.Kill(r.Containers[0].PID, syscall.SIGKILL); err != nil {
					t.Error(err)
				}
			},
			Left: func() []string { return append(l.leftovers(), l.sandboxes()...) },
		}
	})
}

// engine starts an engine over the lab's driver.
func (l *lab) engine(c local.Capacity) (runtimes.Runtime, func()) {
	e := local.New(local.Config{
		Driver: l.driver, Scheme: "containerd", Replicas: filepath.Join(l.dir, "replicas"), Emit: func(resource.Event) {}, Capacity: c, Standbys: 2,
		Log:     slog.New(slog.NewTextHandler(io.Discard, nil)),
		Backoff: local.Backoff{First: 20 * time.Millisecond, Max: 100 * time.Millisecond, Reset: time.Hour},
	})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := e.Run(ctx); err != nil {
			l.Error(err)
		}
	})
	return e, func() {
		cancel()
		wg.Wait()
		l.close()
	}
}
