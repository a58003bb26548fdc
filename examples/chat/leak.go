package main

import (
	"os"
	"sync"
)

// leak is memory that is never freed.
type leak struct {
	mu    sync.Mutex
	kept  [][]byte
	total int64
}

// add allocates n more bytes and touches every page, so that they are really in memory.
func (l *leak) add(n int64) {
	if n == 0 {
		return
	}
	block := make([]byte, n)
	for i := 0; i < len(block); i += os.Getpagesize() {
		block[i] = 1
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kept = append(l.kept, block)
	l.total += n
}

func (l *leak) bytes() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}
