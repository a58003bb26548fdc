package upstream

import (
	"errors"
	"io"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// stale says whether an idle connection can carry no further request: the replica has closed it, or has sent what
// nobody asked for.
func (c *Conn) stale() bool {
	if c.raw == nil {
		return false
	}
	c.ended = true
	return c.raw.Control(c.peek) != nil || c.ended
}

// look says in ended whether there is anything to read, be it the end. It takes no function of its own for each
// request, and the scheduler is not told of a system call that cannot wait.
func (c *Conn) look(fd uintptr) {
	var b byte
	_, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b)), 1, unix.MSG_PEEK|unix.MSG_DONTWAIT, 0, 0)
	c.ended = errno != unix.EAGAIN
}

// Send writes a whole request and waits until there is something to read, or reading has failed, which the read that
// follows will say.
//
// The runtime's Read tries to read before it waits, and right after a request there is never anything yet: a system
// call for nothing in each exchange. A RawConn's function is called before the wait too, and what it does then is
// write: the wait began before the request went out, so that it cannot miss the answer.
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
	if c.sending || len(rest) > 0 { // a deadline of an earlier exchange had passed; or the kernel took a part
		_, err = c.Write(rest)
	}
	return err
}

// send is what Send has called before it waits, and after it has waited.
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

// unacknowledged says whether the other kernel has confirmed no byte of this exchange. Once it has ended the connection,
// that is a proof: a process that closes a connection cannot have read what its kernel had not received, and the segment
// that announces the end carries the newest acknowledgement. A reset is no such proof: it may stem from a process that
// read the request and died before the acknowledgement was due. Over TLS the end of the answers comes before that of the
// connection, and until there is the latter too the process may still read.
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

// endFollows is how long the end of a connection may take after TLS has announced it: it is the next thing that most
// servers do.
const endFollows = 20 * time.Millisecond

// ends waits for the end of the connection below TLS. Nothing else is read from it after that.
func (c *Conn) ends() bool {
	_ = c.tcp.SetReadDeadline(time.Now().Add(endFollows)) // it fails on a closed connection only, as does the read
	n, err := c.tcp.Read(make([]byte, 1))
	return n == 0 && errors.Is(err, io.EOF)
}
