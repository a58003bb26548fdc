package supervisor

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Ports configures how roles request TCP ports while the server runs.
type Ports struct {
	Socket  string // unix socket, relative to the state folder
	Host    string // the only host on which ports are opened, beside Loopback; "" means all addresses of the machine
	Setting string // what a user can change to use another port
}

// Loopback is the host of ports that only this machine can reach.
const Loopback = "127.0.0.1"

// Limits for the socket: the size of a line and how long the rest of a line may take.
const (
	// maxPorts is just below SCM_MAX_FD, the kernel's limit on the descriptors of one message (unix(7)).
	maxPorts     = 250
	maxAsk       = 64 << 10
	maxAnswer    = 1 << 20
	maxAskers    = 16
	portsPatient = 5 * time.Second
)

// portsAsked is a request: all addresses that the role wants. Ports that it does not name are closed.
type portsAsked struct {
	Want []string `json:"want"`
}

// portsAnswer is the response. It comes with one descriptor for each port without a fault, in the same order.
type portsAnswer struct {
	Ports []portAnswer `json:"ports,omitempty"`
	// Superseded is set if a newer process requests ports. The request was then ignored.
	Superseded bool `json:"superseded,omitempty"`
}

type portAnswer struct {
	Address string `json:"address"`
	Fault   string `json:"fault,omitempty"`
}

// ports holds the listeners that a role requested. They are kept here so that they outlive the role: the next one gets
// copies of the same sockets, with the connections that wait in them.
type ports struct {
	Ports
	log *slog.Logger
	ln  net.Listener

	mu     sync.Mutex
	open   map[string]*held // by address
	askers []net.Conn       // connections of roles that have made a request, the newest last
}

// openPorts opens the socket on which roles request ports.
func (s *Supervisor) openPorts(p Ports) error {
	l := Listener{Name: "ports", Network: "unix", Address: p.Socket}
	ln, err := listenAt(l, s.state)
	if err != nil {
		return explain(l, err)
	}
	s.ports = &ports{Ports: p, log: s.opts.Log, ln: ln, open: map[string]*held{}}
	return nil
}

// serve handles requests of roles until ctx ends.
func (p *ports) serve(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := context.AfterFunc(ctx, func() { p.ln.Close() })
	defer stop()
	places := make(chan struct{}, maxAskers)
	for {
		conn, err := p.ln.Accept()
		if err != nil {
			if ctx.Err() == nil {
				p.log.Error("no further TCP port can be opened", "err", err)
			}
			return
		}
		select {
		case places <- struct{}{}:
		default:
			p.log.Warn("too many processes ask for TCP ports", "limit", maxAskers)
			conn.Close()
			continue
		}
		wg.Go(func() {
			defer func() { <-places }()
			if err := p.talk(ctx, conn.(*net.UnixConn)); err != nil && ctx.Err() == nil {
				p.log.Warn("a role that asks for TCP ports was cut off", "err", err)
			}
		})
	}
}

// talk handles the requests of one role until it disconnects.
func (p *ports) talk(ctx context.Context, conn *net.UnixConn) error {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	defer p.left(conn)
	r := bufio.NewReaderSize(conn, maxAsk)
	for {
		// A role may be silent as long as nothing changes, but it must finish a line that it began.
		if err := conn.SetReadDeadline(time.Time{}); err != nil {
			return err
		}
		if _, err := r.Peek(1); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
				return nil
			}
			return err
		}
		if err := conn.SetDeadline(time.Now().Add(portsPatient)); err != nil {
			return err
		}
		line, err := r.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("read what is asked, at most %d bytes: %w", maxAsk, err)
		}
		var asked portsAsked
		if err := json.Unmarshal(line, &asked); err != nil {
			return fmt.Errorf("want a line as in {\"want\": [\"127.0.0.1:6379\"]}: %w", err)
		}
		if err := p.answer(conn, asked); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
	}
}

// left removes a role that has disconnected. The one before it can then make requests again.
func (p *ports) left(conn net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.askers = slices.DeleteFunc(p.askers, func(c net.Conn) bool { return c == conn })
}

// answer opens and closes ports until they match the request, and sends copies of them. It holds mu until the end, because
// the descriptors that it sends must not be closed and reused meanwhile.
func (p *ports) answer(conn *net.UnixConn, asked portsAsked) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !slices.Contains(p.askers, net.Conn(conn)) {
		p.askers = append(p.askers, conn)
	}
	var answer portsAnswer
	var fds []int
	if p.askers[len(p.askers)-1] != conn {
		// This process may have the older table, and it is about to drain.
		answer.Superseded = true
	} else {
		answer.Ports, fds = p.set(asked.Want)
	}
	line, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	var rights []byte
	if len(fds) > 0 {
		rights = syscall.UnixRights(fds...)
	}
	n, _, err := conn.WriteMsgUnix(line, rights, nil)
	if err == nil && n < len(line) {
		_, err = conn.Write(line[n:])
	}
	return err
}

// set opens the wanted ports and closes all others. The caller holds mu.
func (p *ports) set(want []string) (answers []portAnswer, fds []int) {
	for address, h := range p.open {
		if !slices.Contains(want, address) {
			if err := h.close(); err != nil {
				p.log.Warn("a TCP port was not closed well", "address", address, "err", err)
			}
			delete(p.open, address)
			p.log.Info("TCP port is closed", "address", address)
		}
	}
	for _, address := range want {
		h, err := p.get(address)
		if err != nil {
			answers = append(answers, portAnswer{address, err.Error()})
			continue
		}
		answers, fds = append(answers, portAnswer{Address: address}), append(fds, h.fd)
	}
	return answers, fds
}

// get returns the listener of an address, and opens it if needed. The caller holds mu.
func (p *ports) get(address string) (*held, error) {
	if h := p.open[address]; h != nil {
		return h, nil
	}
	host, service, err := net.SplitHostPort(address)
	number, convErr := strconv.ParseUint(service, 10, 16)
	switch {
	case err != nil, convErr != nil, number == 0:
		return nil, fmt.Errorf("want HOST:PORT with a port from 1 to 65535, got %q", address)
	case host != p.Host && host != Loopback:
		return nil, fmt.Errorf("want the host %q or %s, on which alone TCP ports are opened, got %q", p.Host, Loopback, host)
	case len(p.open) >= maxPorts:
		return nil, fmt.Errorf("%d TCP ports are open already, which is the server's limit", maxPorts)
	}
	l := Listener{Name: "tcp", Network: "tcp", Address: address, Setting: p.Setting}
	h, err := open(l, "")
	if err != nil {
		return nil, explain(l, err)
	}
	p.open[address] = h
	p.log.Info("TCP port is open", "address", address)
	return h, nil
}

func (p *ports) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for address, h := range p.open {
		errs = append(errs, h.close())
		delete(p.open, address)
	}
	if err := p.ln.Close(); !errors.Is(err, net.ErrClosed) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// PortsClient requests ports from the supervisor.
type PortsClient struct {
	path string

	mu   sync.Mutex
	conn *net.UnixConn // nil before the first use and after a failure
}

// NewPortsClient returns a client for the socket.
func NewPortsClient(socket string) *PortsClient { return &PortsClient{path: socket} }

// OpenedPort is a listener, or the reason why there is none.
type OpenedPort struct {
	Address  string
	Listener net.Listener
	Fault    string
}

// ErrSuperseded means that a newer process requests ports. The older process may keep using the listeners that it has.
var ErrSuperseded = errors.New("a newer process asks for ports")

// Open requests exactly these addresses; the supervisor closes all others. Each call returns new copies of the listeners
// that the supervisor holds.
func (c *PortsClient) Open(ctx context.Context, addresses []string) (opened []OpenedPort, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", c.path)
		if err != nil {
			return nil, fmt.Errorf("the server's supervisor opens no TCP ports: %w; restart the server if it is of an older version", err)
		}
		c.conn = conn.(*net.UnixConn)
	}
	conn := c.conn
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	defer func() {
		if ctx.Err() != nil || err != nil && !errors.Is(err, ErrSuperseded) {
			conn.Close()
			c.conn = nil
		}
	}()
	if err := conn.SetDeadline(time.Now().Add(portsPatient)); err != nil {
		return nil, err
	}
	line, err := json.Marshal(portsAsked{Want: addresses})
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(append(line, '\n')); err != nil {
		return nil, fmt.Errorf("ask for TCP ports: %w", err)
	}
	line, fds, err := readRights(conn)
	defer func() {
		for _, fd := range fds { // descriptors that were not turned into listeners
			syscall.Close(fd)
		}
	}()
	if err != nil {
		return nil, fmt.Errorf("TCP ports: %w", err)
	}
	var answer portsAnswer
	if err := json.Unmarshal(line, &answer); err != nil {
		return nil, fmt.Errorf("TCP ports: %w", err)
	}
	if answer.Superseded {
		return nil, ErrSuperseded
	}
	defer func() {
		for _, o := range opened {
			if err != nil && o.Listener != nil {
				o.Listener.Close()
			}
		}
	}()
	for _, port := range answer.Ports {
		o := OpenedPort{Address: port.Address, Fault: port.Fault}
		if port.Fault == "" {
			if len(fds) == 0 {
				return opened, errors.New("TCP ports: the supervisor sent fewer sockets than it said")
			}
			fd := fds[0]
			fds = fds[1:]
			if o.Listener, err = inheritListener(fd, port.Address); err != nil {
				return opened, err
			}
		}
		opened = append(opened, o)
	}
	return opened, nil
}

// Close ends the requests of this process. An earlier process can then make requests again.
func (c *PortsClient) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

// readRights reads a line and its descriptors, which are close-on-exec. The caller must close them, even on an error.
func readRights(conn *net.UnixConn) (line []byte, fds []int, err error) {
	buf := make([]byte, 16<<10)
	oob := make([]byte, syscall.CmsgSpace(4*(maxPorts+3)))
	for !bytes.HasSuffix(line, []byte("\n")) {
		n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
		messages, parseErr := syscall.ParseSocketControlMessage(oob[:oobn])
		for _, m := range messages {
			more, rightsErr := syscall.ParseUnixRights(&m)
			fds, parseErr = append(fds, more...), errors.Join(parseErr, rightsErr)
		}
		line = append(line, buf[:n]...)
		if n == 0 && err == nil {
			err = io.ErrUnexpectedEOF
		}
		if len(line) > maxAnswer {
			err = fmt.Errorf("want a line of at most %d bytes", maxAnswer)
		}
		if err := errors.Join(err, parseErr); err != nil {
			return nil, fds, err
		}
	}
	return line, fds, nil
}
