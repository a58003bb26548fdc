package upstream

import (
	"errors"
	"io"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// stale says whether an idle connection can carry no further request: the replica has closed it, or has sent something
// unasked.
func (c *Conn) stale() bool {
	if c.raw == nil {
		return false
	}
	c.ended = true
	return c.raw.Control(c.peek) != nil || c.ended
}

// look sets ended if there is anything to read, including the end. It needs no new closure for each request, and does not
// tell the scheduler about a system call that cannot block.
func (c *Conn) look(fd uintptr) {
	var b byte
	_, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b)), 1, unix.MSG_PEEK|unix.MSG_DONTWAIT, 0, 0)
	c.ended = errno != unix.EAGAIN
}

// Send writes a whole request and waits until there is something to read or reading fails; the next read then returns
// that.
//
// The runtime's Read tries to read before it waits. Right after a request there is nothing to read yet, so that would be one
// useless system call in each exchange. A RawConn also calls its function before it waits, and that call is used to write: as
// the wait began before the request was sent, it cannot miss the answer.
func (c *Conn) Send(p []byte) error {
	if c.raw == nil || c.encrypted {
		_, err := c.Write(p)
		return err
	}
	c.request, c.sendErr, c.sending = p, nil, true
	_ = c.raw.Read(c.step)
	rest, err := c.request, c.sendErr
	c.request = nil
	if err != nil {
		return err
	}
	if c.sending || len(rest) > 0 { // a deadline of an earlier exchange had passed, or the kernel accepted only a part
		_, err = c.Write(rest)
	}
	return err
}

// send is the function that the runtime calls for Send, before and after the wait.
func (c *Conn) send(fd uintptr) (done bool) {
	if !c.sending {
		return true
	}
	c.sending = false
	n, err := unix.Write(int(fd), c.request)
	for err == unix.EINTR {
		n, err = unix.Write(int(fd), c.request)
	}
	if n > 0 {
		c.request = c.request[n:]
		c.written.Add(int64(n))
		c.Touch()
	}
	if err != nil && err != unix.EAGAIN {
		c.sendErr = os.NewSyscallError("write", err)
	}
	return err != nil || len(c.request) > 0
}

// unacknowledged says whether the other kernel has acknowledged no byte of this exchange. Once it has ended the connection
// with a FIN, that proves that the process has not read the request: it cannot have read what its kernel had not received,
// and the FIN carries the newest acknowledgement. A reset proves nothing: the process may have read the request and died
// before the acknowledgement was due. Over TLS the end of the answers comes before the end of the connection, and until the
// connection has ended too, the process may still read.
func (c *Conn) unacknowledged() bool {
	if c.raw == nil || c.encrypted && !c.ends() {
		return false
	}
	clean := false
	err := c.raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return
		}
		// Linux counts the SYN as one acknowledged byte.
		clean = info.Bytes_acked <= uint64(c.base)+1
	})
	return err == nil && clean
}

// endFollows is how long the end of a connection may take after TLS has announced it. Most servers close it right away.
const endFollows = 20 * time.Millisecond

// ends waits for the end of the connection below TLS. Nothing may be read from it after that.
func (c *Conn) ends() bool {
	_ = c.tcp.SetReadDeadline(time.Now().Add(endFollows)) // fails only on a closed connection, as the read does
	n, err := c.tcp.Read(make([]byte, 1))
	return n == 0 && errors.Is(err, io.EOF)
}
