package upstream

// Stale says whether the pool would throw an idle connection away.
func (c *Conn) Stale() bool { return c.stale() }

const MaxDials = maxDials

// Wants is how many Gets wait.
func (p *Pool) Wants() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.wants)
}
