package upstream

import "golang.org/x/sys/unix"

// stale says whether an idle connection can carry no further request: the replica has closed it, or has sent what
// nobody asked for.
func (c *Conn) stale() bool {
	if c.raw == nil {
		return false
	}
	stale := true
	err := c.raw.Control(func(fd uintptr) {
		poll := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLRDHUP}}
		n, err := unix.Poll(poll[:], 0)
		stale = n != 0 && err == nil
	})
	return stale || err != nil
}

// unacknowledged says whether the other kernel has confirmed no byte of this exchange. Once it has ended the connection,
// that is a proof: a process that closes a connection cannot have read what its kernel had not received, and the segment
// that announces the end carries the newest acknowledgement. A reset is no such proof: it may stem from a process that
// read the request and died before the acknowledgement was due.
func (c *Conn) unacknowledged() bool {
	if c.raw == nil {
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
