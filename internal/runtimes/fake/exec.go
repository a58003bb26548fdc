package fake

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"syscall"

	"penstock/internal/runtimes"
	"penstock/internal/runtimes/local"
)

// Exec implements local.Execer. It knows these programs: echo prints its arguments; cat copies its standard input or
// the given file; env prints the container's variables; size prints the size of its terminal once it has one; and exit
// ends with the given code.
func (d *Driver) Exec(ctx context.Context, id string, e runtimes.Exec) (code int, err error) {
	d.mu.Lock()
	c := d.containers[id]
	runs := c != nil && c.process != nil && c.exit == nil
	d.mu.Unlock()
	if !runs {
		return 0, fmt.Errorf("container %s: %w", id, local.ErrGone)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan int, 1)
	d.processes.Go(func() { ended <- c.process.command(ctx, e) })
	select {
	case code = <-ended:
		if code < 0 {
			return 0, fmt.Errorf("exec: %q: executable file not found in $PATH", e.Command[0])
		}
		return code, nil
	case <-c.process.closed:
		return 128 + int(syscall.SIGKILL), nil
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// command runs an additional program. It returns -1 if there is no such program.
func (p *process) command(ctx context.Context, e runtimes.Exec) int {
	args := e.Command[1:]
	switch e.Command[0] {
	case "echo":
		fmt.Fprintln(e.Stdout, strings.Join(args, " "))
	case "env":
		for _, v := range p.spec.Env {
			fmt.Fprintf(e.Stdout, "%s=%s\n", v.Name, v.Value)
		}
	case "cat":
		return p.cat(args, e)
	case "exit":
		code := 0
		if len(args) > 0 {
			code, _ = strconv.Atoi(args[0])
		}
		fmt.Fprintln(e.Stderr, "exiting with", code)
		return max(0, code)
	case "size":
		select {
		case size := <-e.Resize:
			fmt.Fprintf(e.Stdout, "%dx%d\n", size.Width, size.Height)
		case <-ctx.Done():
		}
	default:
		return -1
	}
	return 0
}

func (p *process) cat(args []string, e runtimes.Exec) int {
	if len(args) == 0 {
		if e.Stdin != nil {
			_, _ = io.Copy(e.Stdout, bufio.NewReader(e.Stdin)) // ends with its client
		}
		return 0
	}
	text, ok := p.disk.read(p.spec, args[0])
	if !ok {
		fmt.Fprintf(e.Stderr, "cat: %s: no such file\n", args[0])
		return 1
	}
	_, _ = io.WriteString(e.Stdout, text)
	return 0
}

var _ local.Execer = (*Driver)(nil)
