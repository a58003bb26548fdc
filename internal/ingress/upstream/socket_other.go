//go:build !linux

package upstream

// stale needs Linux's poll flags; elsewhere a closed connection is found by using it.
func (c *Conn) stale() bool { return false }

func (c *Conn) look(uintptr) {}

func (c *Conn) send(uintptr) (done bool) { return true }

// Send writes a whole request.
func (c *Conn) Send(p []byte) error {
	_, err := c.Write(p)
	return err
}

// unacknowledged needs Linux's TCP_INFO; elsewhere nothing is proven.
func (c *Conn) unacknowledged() bool { return false }
