package front

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

func (c *conn) receiver() func(uintptr) bool { return c.receiveOnce }

// receiveOnce takes a buffer and reads into it, and says whether there was something to read, including the end. If not, the
// runtime calls it again when there is.
func (c *conn) receiveOnce(fd uintptr) (done bool) {
	buf := c.server.buffers.Small()
	n, err := unix.Read(int(fd), buf)
	for err == unix.EINTR {
		n, err = unix.Read(int(fd), buf)
	}
	if n > 0 {
		c.in, c.r, c.w = buf, 0, n
		return true
	}
	c.server.buffers.Put(buf)
	switch err {
	case unix.EAGAIN:
		return false
	case nil:
		c.readErr = io.EOF
	default:
		c.readErr = os.NewSyscallError("read", err)
	}
	return true
}
