package ingress

import "golang.org/x/sys/unix"

// gone says whether the client has ended the connection. net/http finds that out once it has read a request's body,
// which is left unread as long as the request waits.
func (c *client) gone() bool {
	if c.raw == nil {
		return false
	}
	gone := false
	err := c.raw.Control(func(fd uintptr) {
		poll := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(poll[:], 0)
		gone = err == nil && n > 0
	})
	return gone || err != nil
}
