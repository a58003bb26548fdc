package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const (
	// logFile is the log of a background server, in its data folder.
	logFile = "server.log"
	// startLimit is how long to wait for a server that neither responds nor ends.
	startLimit = 2 * time.Minute
)

// ensureServer returns a client of the data folder's server. It starts the server if none runs.
func (e *Env) ensureServer(ctx context.Context, cmd *cobra.Command, data string) (*Client, error) {
	pid, err := e.running(data)
	if err != nil {
		return nil, err
	}
	if pid != 0 {
		for _, setting := range e.passOn(cmd) {
			if !strings.HasPrefix(setting, "--data=") {
				fmt.Fprintf(e.Stderr, "a server (pid %d) is already running; %s is ignored\n", pid, setting)
			}
		}
		return e.awaitServer(ctx, data, nil, startLimit)
	}
	s, err := e.settings(cmd)
	if err != nil {
		return nil, err
	}
	if err := e.MayServe(s.Runtime); err != nil {
		return nil, err
	}
	began := time.Now()
	fmt.Fprintf(e.Stderr, "starting a server on data folder %s\n", data)
	if _, err := os.Stat(filepath.Join(data, SettingsFile)); err == nil {
		fmt.Fprintf(e.Stderr, "settings that are not given are those of %s\n", filepath.Join(data, SettingsFile))
	}
	if err := os.MkdirAll(data, 0o711); err != nil {
		return nil, hint(fmt.Errorf("data folder: %w", err), "run as root, or choose a folder that you own with --data")
	}
	// The connection file of an earlier server names a port that another program may use by now.
	if err := os.Remove(filepath.Join(data, ConnectionFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	if err := rotate(filepath.Join(data, logFile)); err != nil {
		return nil, fmt.Errorf("server log: %w", err)
	}
	log, err := os.OpenFile(filepath.Join(data, logFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return nil, fmt.Errorf("server log: %w", err)
	}
	defer log.Close()
	before, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, fmt.Errorf("server log: %w", err)
	}
	server := exec.Command(e.Exe, append([]string{"server"}, e.passOn(cmd)...)...)
	server.Stdout, server.Stderr = log, log
	// The server gets its own session, so that Ctrl-C or closing this terminal does not end it.
	server.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := server.Start(); err != nil {
		return nil, fmt.Errorf("start server: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }() // this goroutine may outlive the call, but the process ends soon
	alive, end := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		newBar(e.Stderr).pulse(alive, func(now time.Time) string {
			return fmt.Sprintf("  %s  the server starts", now.Sub(began).Round(time.Second))
		})
	})
	c, err := e.awaitServer(ctx, data, ended, startLimit)
	end()
	wg.Wait()
	if err != nil {
		e.quote(filepath.Join(data, logFile), before)
		return nil, err
	}
	if err := e.Keep(cmd.Flags()); err != nil {
		fmt.Fprintf(e.Stderr, "the settings of this start are not kept for the next one: %v\n", err)
	}
	fmt.Fprintf(e.Stderr, "server is ready after %s (pid %d, log file %s)\n", time.Since(began).Round(time.Millisecond), server.Process.Pid, filepath.Join(data, logFile))
	return c, nil
}

// MayServe returns an error if this user cannot run a server with that runtime.
func (e *Env) MayServe(runtime string) error {
	if runtime != "containerd" || e.UID == 0 {
		return nil
	}
	return hint(fmt.Errorf("a server that runs containers needs root, got a user with ID %d", e.UID),
		"the same command with sudo\n--runtime fake --data FOLDER, to try the API without containers")
}

// awaitServer waits until the data folder's server responds. ended receives the exit of a server that this process started.
func (e *Env) awaitServer(ctx context.Context, data string, ended <-chan error, limit time.Duration) (*Client, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the server did not respond within %s", limit))
	defer cancel()
	var c *Client
	err := poll(ctx, func() (bool, error) {
		select {
		case err := <-ended:
			return false, fmt.Errorf("the server ended before it was ready: %w", err)
		default:
		}
		if ended == nil {
			if pid, err := e.Running(data); err == nil && pid == 0 {
				return false, errors.New("the server has ended")
			}
		}
		var err error
		if c, err = e.clientOf(data); err != nil {
			return false, nil
		}
		_, err = c.status(ctx)
		if _, refused := errors.AsType[*APIError](err); refused {
			return false, err
		}
		return err == nil, nil
	})
	if err != nil {
		return nil, hint(err, "look at %s\npenstock doctor", filepath.Join(data, logFile))
	}
	return c, nil
}

// maxLog is the size above which a log is rotated at the next start. One old log is kept.
const maxLog = 16 << 20

func rotate(path string) error {
	info, err := os.Stat(path)
	if err != nil || info.Size() < maxLog {
		return nil // opening the log reports the error
	}
	return os.Rename(path, path+".1")
}

// passOn returns the arguments of the background server: the server flags that were given to this command.
func (e *Env) passOn(cmd *cobra.Command) []string {
	known := pflag.NewFlagSet("", pflag.ContinueOnError)
	e.Common(known)
	e.Server(known)
	var args []string
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if known.Lookup(f.Name) != nil {
			args = append(args, "--"+f.Name+"="+f.Value.String())
		}
	})
	return args
}

// quote prints the last lines that a file has after offset.
func (e *Env) quote(path string, offset int64) {
	b, err := os.ReadFile(path)
	if err != nil || int64(len(b)) < offset {
		return
	}
	const most = 12
	lines := bytes.Split(bytes.TrimSpace(b[offset:]), []byte("\n"))
	for _, l := range lines[max(0, len(lines)-most):] {
		fmt.Fprintf(e.Stderr, "  %s\n", l)
	}
}
