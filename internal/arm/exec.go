package arm

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"penstock/internal/arm/terminal"
	"penstock/internal/resource"
	"penstock/internal/runtimes"
)

// exec runs a command in a container, connected to a WebSocket. Package terminal has the messages.
//
// az sends the whole command as one text, which is split at spaces, and uses a terminal. Other clients can send it word by
// word, with tty=false.
func exec(c *call) error {
	rev, _, err := c.revision()
	if err != nil {
		return err
	}
	query := c.r.URL.Query()
	command, tty, err := readExecQuery(query)
	if err != nil {
		return err
	}
	running, err := c.running()
	if err != nil {
		return err
	}
	replica, container := c.vars["replica"], c.vars["container"]
	found := running[rev.ID.Key()]
	i := slices.IndexFunc(found, func(r resource.Replica) bool { return r.Name == replica })
	if i < 0 {
		return notFound(rev.ID.Child("replicas", replica))
	}
	if !slices.ContainsFunc(slices.Concat(found[i].Containers, found[i].InitContainers), func(c resource.ContainerStatus) bool { return c.Name == container }) {
		return notFound(rev.ID.Child("replicas", replica).Child("containers", container))
	}
	runtime, ok := c.Runtime.(Execer)
	if !ok {
		return refuse(http.StatusNotImplemented, resource.CodeNotBuilt, "The engine of this server cannot run commands in containers.")
	}
	if !strings.EqualFold(c.r.Header.Get("Upgrade"), "websocket") {
		return refuse(http.StatusUpgradeRequired, "UpgradeRequired", "This address needs a WebSocket; want the headers of its opening handshake.")
	}
	// The origin does not matter: the request has a token, which no page of another origin can make a browser send.
	conn, err := websocket.Accept(c.w, c.r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return nil // Accept has sent the answer
	}
	defer conn.CloseNow()
	conn.SetReadLimit(terminal.MaxMessage)
	ctx, cancel := context.WithCancel(c.r.Context())
	defer cancel()
	s := &session{conn: conn, tty: tty, leave: cancel, sizes: make(chan runtimes.Size, 1)}
	input, keyboard := io.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() { s.read(ctx, keyboard) })
	wg.Go(func() { s.ping(ctx, cmp.Or(c.Quiet, defaultQuiet)) })
	code, err := runtime.Exec(ctx, replica, container, runtimes.Exec{
		Command: command, TTY: tty, Stdin: input, Resize: s.sizes,
		Stdout: s.stream(ctx, terminal.Output), Stderr: s.stream(ctx, terminal.Errors),
	})
	input.Close() // the command no longer reads it
	switch {
	case ctx.Err() != nil: // the client has left, or the server is stopping
	case err != nil:
		if _, sent := s.stream(ctx, terminal.Fault).Write([]byte(err.Error())); sent == nil {
			_ = conn.Close(websocket.StatusInternalError, "the command was not run")
		}
	default:
		_ = conn.Close(websocket.StatusNormalClosure, terminal.Reason(code)) // it fails only when the client has left
	}
	cancel()
	wg.Wait()
	return nil
}

func readExecQuery(query url.Values) (command []string, tty bool, err error) {
	bad := func(field, want, got string) error {
		return &resource.InvalidError{Faults: []resource.Fault{{Code: "InvalidParameterValue", Field: field, Message: "want " + want + ", got " + strconv.Quote(got)}}}
	}
	tty = true
	if s := query.Get("tty"); s != "" {
		if tty, err = strconv.ParseBool(s); err != nil {
			return nil, false, bad("tty", "true or false", s)
		}
	}
	command = query["command"]
	if len(command) == 1 && query.Get("split") != "false" {
		command = strings.Fields(command[0])
	}
	if len(command) == 0 || command[0] == "" {
		return nil, false, bad("command", "a command, as in command=sh", "")
	}
	return command, tty, nil
}

// session is the connection of a command.
type session struct {
	conn  *websocket.Conn
	tty   bool
	leave func() // ends the command
	sizes chan runtimes.Size
}

// read handles the messages of the client until it leaves.
func (s *session) read(ctx context.Context, keyboard *io.PipeWriter) {
	defer s.leave()
	defer keyboard.Close()
	for {
		_, message, err := s.conn.Read(ctx)
		if err != nil {
			return
		}
		kind, data, err := terminal.Parse(message)
		if err != nil {
			_ = s.conn.Close(websocket.StatusUnsupportedData, "a message of an unknown kind")
			return
		}
		switch kind {
		case terminal.Input:
			if len(data) == 0 && !s.tty {
				keyboard.Close()
			}
			// An error means that the command has ended. Its input is dropped, but read still waits for the client to leave.
			_, _ = keyboard.Write(data)
		case terminal.Resize:
			size, err := terminal.ParseSize(data)
			if err != nil {
				continue // a terminal without a known size sends 0
			}
			select {
			case <-s.sizes: // only the newest size counts
			default:
			}
			s.sizes <- runtimes.Size(size)
		}
	}
}

// ping sends a ping at each interval, so that no proxy takes a silent terminal for dead. That there is no answer means nothing:
// it is behind the input that the command has not read yet.
func (s *session) ping(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			waiting, cancel := context.WithTimeout(ctx, every)
			_ = s.conn.Ping(waiting)
			cancel()
		case <-ctx.Done():
			return
		}
	}
}

// stream is a writer whose data is sent as messages of one kind.
func (s *session) stream(ctx context.Context, kind terminal.Kind) io.Writer {
	return writerFunc(func(b []byte) (int, error) {
		ctx, cancel := context.WithTimeoutCause(ctx, streamPatience, errors.New("the client takes nothing"))
		defer cancel()
		if err := s.conn.Write(ctx, websocket.MessageBinary, terminal.Message(kind, b)); err != nil {
			s.leave()
			return 0, err
		}
		return len(b), nil
	})
}

type writerFunc func([]byte) (int, error)

func (w writerFunc) Write(b []byte) (int, error) { return w(b) }
