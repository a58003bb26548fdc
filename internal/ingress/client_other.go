//go:build !linux

package ingress

// gone needs Linux's poll flags; elsewhere a request with a body whose client went waits until its time is over.
func (c *client) gone() bool { return false }
