package containerd

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"

	"penstock/internal/runtimes"
	"penstock/internal/runtimes/local"
)

// execPatience is how long the output of an ended command may stay open. A child that is still running can hold it
// open.
const execPatience = 2 * time.Second

// execution is a command that runs in a container.
type execution struct {
	d      *Driver
	c      *container
	id     string
	wanted runtimes.Exec
	io     cio.IO
}

// Exec implements local.Execer.
func (d *Driver) Exec(ctx context.Context, id string, wanted runtimes.Exec) (code int, err error) {
	c, err := d.container(id)
	if err != nil {
		return 0, err
	}
	ctx = inNamespace(ctx)
	x := &execution{d: d, c: c, id: rand.Text(), wanted: wanted}
	process, err := x.process()
	if err != nil {
		return 0, err
	}
	spec, err := typeurl.MarshalAnyToProto(process)
	if err != nil {
		return 0, err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	started := make(chan struct{})
	options := []cio.Opt{cio.WithFIFODir(c.dir), cio.WithStreams(nil, wanted.Stdout, wanted.Stderr)}
	if wanted.Stdin != nil {
		ended := make(chan struct{})
		options[1] = cio.WithStreams(&endTeller{Reader: wanted.Stdin, tell: sync.OnceFunc(func() { close(ended) })}, wanted.Stdout, wanted.Stderr)
		wg.Go(func() {
			select {
			case <-ended:
				x.closeStdin(running, started)
			case <-running.Done():
			}
		})
	}
	if wanted.TTY {
		options = append(options, cio.WithTerminal)
	}
	if x.io, err = cio.NewCreator(options...)(x.id); err != nil {
		return 0, fmt.Errorf("pipes: %w", err)
	}
	defer func() {
		x.io.Cancel()
		x.io.Wait()
		err = errors.Join(err, x.io.Close())
	}()
	pipes := x.io.Config()
	// Without this, a command would not be killed if the call to start it was canceled after it had succeeded.
	whole := context.WithoutCancel(ctx)
	_, err = d.client.TaskService().Exec(whole, &tasks.ExecProcessRequest{
		ContainerID: c.key, ExecID: x.id, Terminal: wanted.TTY, Stdin: pipes.Stdin, Stdout: pipes.Stdout, Stderr: pipes.Stderr, Spec: spec,
	})
	if err != nil {
		return 0, x.gone(err)
	}
	defer x.delete(ctx)
	if _, err := d.client.TaskService().Start(whole, &tasks.StartRequest{ContainerID: c.key, ExecID: x.id}); err != nil {
		return 0, x.gone(err)
	}
	close(started)
	wg.Go(func() { x.resize(running) })
	if code, err = x.wait(ctx); err != nil {
		return 0, err
	}
	x.drain()
	return code, nil
}

// process returns the specification of the container's own process with another command.
func (x *execution) process() (*specs.Process, error) {
	text, err := os.ReadFile(filepath.Join(x.d.bundle(x.c), "config.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the container ended: %w", local.ErrGone)
	}
	if err != nil {
		return nil, err
	}
	var spec specs.Spec
	if err := json.Unmarshal(text, &spec); err != nil {
		return nil, fmt.Errorf("read its specification: %w", err)
	}
	p := spec.Process
	p.Args, p.Terminal = x.wanted.Command, x.wanted.TTY
	if p.Terminal && !slices.ContainsFunc(p.Env, func(v string) bool { return strings.HasPrefix(v, "TERM=") }) {
		p.Env = append(p.Env, "TERM=xterm")
	}
	return p, nil
}

// gone shortens an error of containerd, and returns the error of the driver's contract if the container has ended.
func (x *execution) gone(err error) error {
	err = errgrpc.ToNative(err)
	if errdefs.IsNotFound(err) && !strings.Contains(err.Error(), "executable file") {
		return fmt.Errorf("%w: %w", local.ErrGone, err)
	}
	const start = "unable to start container process: "
	if _, why, found := strings.Cut(err.Error(), start); found {
		return errors.New(why)
	}
	return err
}

// wait returns the exit code. When ctx ends, it kills the command.
func (x *execution) wait(ctx context.Context) (int, error) {
	type end struct {
		code int
		err  error
	}
	waiting, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan end, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		answer, err := x.d.client.TaskService().Wait(waiting, &tasks.WaitRequest{ContainerID: x.c.key, ExecID: x.id})
		ended <- end{int(answer.GetExitStatus()), errgrpc.ToNative(err)}
	})
	select {
	case e := <-ended:
		return e.code, e.err
	case <-ctx.Done():
	case <-x.c.ended: // the kernel kills what is left of it
	}
	_, err := x.d.client.TaskService().Kill(waiting, &tasks.KillRequest{ContainerID: x.c.key, ExecID: x.id, Signal: uint32(syscall.SIGKILL)})
	if err = errgrpc.ToNative(err); err != nil && !errdefs.IsNotFound(err) && !errdefs.IsFailedPrecondition(err) {
		return 0, fmt.Errorf("kill: %w", err)
	}
	select {
	case e := <-ended:
		if ctx.Err() == nil {
			return e.code, e.err
		}
	case <-time.After(execPatience):
	}
	if ctx.Err() == nil {
		return 0, fmt.Errorf("the container ended: %w", local.ErrGone)
	}
	return 0, context.Cause(ctx)
}

// drain waits for the rest of the output.
func (x *execution) drain() {
	limit := time.AfterFunc(execPatience, x.io.Cancel)
	defer limit.Stop()
	x.io.Wait()
}

// delete removes the command from the shim. The shim does not answer while a child of the command holds its output
// open.
func (x *execution) delete(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), execPatience)
	defer cancel()
	_, err := x.d.client.TaskService().DeleteProcess(ctx, &tasks.DeleteProcessRequest{ContainerID: x.c.key, ExecID: x.id})
	if err = errgrpc.ToNative(err); err != nil && !errdefs.IsNotFound(err) {
		x.d.log.Debug("a command that has ended stays known to its shim until its container ends", "container", x.c.id, "err", err)
	}
}

// closeStdin tells the command that its input has ended. The shim holds the pipe open too, so closing our end is not
// enough.
func (x *execution) closeStdin(ctx context.Context, started <-chan struct{}) {
	select {
	case <-started:
	case <-ctx.Done():
		return
	}
	_, err := x.d.client.TaskService().CloseIO(ctx, &tasks.CloseIORequest{ContainerID: x.c.key, ExecID: x.id, Stdin: true})
	if err = errgrpc.ToNative(err); err != nil && !errdefs.IsNotFound(err) && ctx.Err() == nil {
		x.d.log.Warn("the standard input of a command cannot be closed; it may wait for more", "container", x.c.id, "err", err)
	}
}

func (x *execution) resize(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case size, ok := <-x.wanted.Resize:
			if !ok {
				return
			}
			_, err := x.d.client.TaskService().ResizePty(ctx, &tasks.ResizePtyRequest{
				ContainerID: x.c.key, ExecID: x.id, Width: uint32(size.Width), Height: uint32(size.Height),
			})
			if err != nil && ctx.Err() == nil {
				x.d.log.Debug("a terminal was not resized", "container", x.c.id, "err", errgrpc.ToNative(err))
			}
		}
	}
}

// endTeller signals when a reader has ended, with or without an error.
type endTeller struct {
	io.Reader
	tell func()
}

func (r *endTeller) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	if err != nil {
		r.tell()
	}
	return n, err
}

var _ local.Execer = (*Driver)(nil)
