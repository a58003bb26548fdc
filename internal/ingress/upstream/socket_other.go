//go:build !linux

package upstream

// stale needs Linux's poll flags; elsewhere a closed connection is found by using it.
func (c *Conn) stale() bool { return false }

// unacknowledged needs Linux's TCP_INFO; elsewhere nothing is proven.
func (c *Conn) unacknowledged() bool { return false }
