package cli

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"syscall"

	"github.com/coder/websocket"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"penstock/internal/arm/terminal"
)

// execOptions choose the container that a command runs in.
type execOptions struct {
	revision, replica, container string
}

func newAppExecCmd(env *Env, s *scope) *cobra.Command {
	o := &execOptions{}
	cmd := &cobra.Command{
		Use:   "exec NAME [-- COMMAND...]",
		Short: "Run a command (default: sh) in a container of an app",
		Long: "Run a command in a container of an app, or sh if you give none. The command gets a terminal if this one has one.\n" +
			"The exit code is that of the command.",
		Example: "  penstock app exec chat\n  penstock app exec chat --container main -- cat /etc/os-release",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			command := args[1:]
			if len(command) == 0 {
				command = []string{"sh"}
			}
			path, err := o.find(cmd.Context(), c, s, args[0])
			if err != nil {
				return err
			}
			return env.exec(cmd.Context(), c, path, command)
		},
	}
	cmd.Flags().StringVar(&o.revision, "revision", "", "revision to use (default: the latest ready revision)")
	cmd.Flags().StringVar(&o.replica, "replica", "", "replica to use (default: a running one)")
	cmd.Flags().StringVar(&o.container, "container", "", "container to use (default: the first)")
	return cmd
}

// find returns the path of the exec endpoint. It chooses whatever the user did not name.
func (o *execOptions) find(ctx context.Context, c *Client, s *scope, name string) (string, error) {
	revision := o.revision
	if revision == "" {
		doc, err := c.get(ctx, s.path("containerApps", name), version())
		if err != nil {
			return "", err
		}
		app, err := decode[appView](doc)
		if err != nil {
			return "", err
		}
		if revision = app.Properties.LatestReadyRevisionName; revision == "" {
			return "", hint(fmt.Errorf("app %s has no revision that has been ready", name), "choose one with --revision; penstock revision list %s", name)
		}
	}
	docs, err := c.list(ctx, s.path("containerApps", name, "revisions", revision, "replicas"))
	if err != nil {
		return "", err
	}
	replicas, err := decodeAll[replicaView](docs)
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(replicas, func(r replicaView) bool {
		return o.replica == r.Name || o.replica == "" && r.Properties.RunningState == "Running"
	})
	if i < 0 {
		return "", hint(fmt.Errorf("revision %s has no such running replica: %w", revision, errNotFound), "penstock replica list %s", name)
	}
	container := o.container
	if container == "" && len(replicas[i].Properties.Containers) > 0 {
		container = replicas[i].Properties.Containers[0].Name
	}
	return s.path("containerApps", name, "revisions", revision, "replicas", replicas[i].Name, "containers", container, "exec"), nil
}

// exitError makes this program exit with the exit code of the remote command.
type exitError struct{ code int }

func (e *exitError) Error() string { return "the command ended with exit code " + strconv.Itoa(e.code) }

// exec runs a command and connects it to this program's streams.
func (e *Env) exec(ctx context.Context, c *Client, path string, command []string) error {
	keyboard, _ := e.Stdin.(*os.File)
	tty := keyboard != nil && term.IsTerminal(int(keyboard.Fd()))
	conn, err := c.socket(ctx, path, url.Values{
		"command": command, "split": {"false"}, "tty": {strconv.FormatBool(tty)},
	})
	if err != nil {
		return err
	}
	defer conn.CloseNow()
	conn.SetReadLimit(terminal.MaxMessage)
	if tty {
		restore, err := e.raw(ctx, conn, keyboard)
		if err != nil {
			return err
		}
		defer restore()
	}
	// This goroutine ends with the input, or, if the input never ends, with the program.
	go sendInput(ctx, conn, e.Stdin, tty)
	return e.receive(ctx, conn)
}

// receive prints the command's output until the command ends.
func (e *Env) receive(ctx context.Context, conn *websocket.Conn) error {
	for {
		_, message, err := conn.Read(ctx)
		if end, ok := errors.AsType[websocket.CloseError](err); ok && end.Code == websocket.StatusNormalClosure {
			code, err := terminal.ParseReason(end.Reason)
			if err == nil && code != 0 {
				err = &exitError{code}
			}
			return err
		}
		if err != nil {
			return fmt.Errorf("the command's connection: %w", err)
		}
		kind, data, err := terminal.Parse(message)
		switch {
		case err != nil:
		case kind == terminal.Output:
			_, err = e.Stdout.Write(data)
		case kind == terminal.Errors:
			_, err = e.Stderr.Write(data)
		case kind == terminal.Fault:
			err = fmt.Errorf("%s", data)
		}
		if err != nil {
			return err
		}
	}
}

// sendInput sends what it reads from in. It reports no errors: they show up where the output is read.
func sendInput(ctx context.Context, conn *websocket.Conn, in io.Reader, tty bool) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := in.Read(buffer)
		if n > 0 && conn.Write(ctx, websocket.MessageBinary, terminal.Message(terminal.Input, buffer[:n])) != nil {
			return
		}
		if err != nil {
			if !tty {
				_ = conn.Write(ctx, websocket.MessageBinary, terminal.Message(terminal.Input, nil))
			}
			return
		}
	}
}

// raw passes every key press to the command, and the terminal's size now and whenever it changes.
func (e *Env) raw(ctx context.Context, conn *websocket.Conn, keyboard *os.File) (restore func(), err error) {
	before, err := term.MakeRaw(int(keyboard.Fd()))
	if err != nil {
		return nil, fmt.Errorf("terminal: %w", err)
	}
	changes, done, ended := make(chan os.Signal, 1), make(chan struct{}), make(chan struct{})
	signal.Notify(changes, syscall.SIGWINCH)
	go func() {
		defer close(ended)
		for {
			if width, height, err := term.GetSize(int(keyboard.Fd())); err == nil {
				size := terminal.MarshalSize(terminal.Size{Width: width, Height: height})
				if conn.Write(ctx, websocket.MessageBinary, terminal.Message(terminal.Resize, size)) != nil {
					return
				}
			}
			select {
			case <-changes:
			case <-done:
				return
			}
		}
	}()
	return func() {
		signal.Stop(changes)
		close(done)
		<-ended
		if err := term.Restore(int(keyboard.Fd()), before); err != nil {
			fmt.Fprintln(e.Stderr, "penstock: the terminal settings could not be restored; try: reset")
		}
	}, nil
}

// socket opens a WebSocket.
func (c *Client) socket(ctx context.Context, path string, query url.Values) (*websocket.Conn, error) {
	u, err := c.endpoint.Parse(path)
	if err != nil {
		return nil, err
	}
	u.RawQuery = query.Encode()
	transport, ok := c.http.Transport.(*http.Transport)
	if !ok {
		return nil, fmt.Errorf("want a client over HTTP, got %T", c.http.Transport)
	}
	// A WebSocket begins as HTTP/1.1.
	transport = transport.Clone()
	transport.ForceAttemptHTTP2 = false
	transport.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	transport.TLSClientConfig.NextProtos = []string{"http/1.1"}
	conn, answer, err := websocket.Dial(ctx, u.String(), &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: transport}, HTTPHeader: http.Header{"Authorization": {"Bearer " + c.token}},
	})
	if err == nil {
		return conn, nil
	}
	if answer != nil {
		body, _ := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
		if e := errorOf(answer.StatusCode, bytes.TrimSpace(body)); e != nil {
			return nil, e
		}
	}
	return nil, fmt.Errorf("connect to the container: %w", err)
}
