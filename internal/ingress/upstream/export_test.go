package upstream

// Stale says whether the pool would throw an idle connection away.
func (c *Conn) Stale() bool { return c.stale() }
