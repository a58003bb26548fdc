package main

import (
	"sync"
	"time"
)

// progress is the progress of loading the models.
type progress struct {
	started time.Time
	total   int

	mu     sync.Mutex
	loaded []string // codes, in the order of loading
	last   time.Time
}

func newProgress(total int, now time.Time) *progress {
	return &progress{started: now, total: total, last: now}
}

// add records that languages have been loaded.
func (p *progress) add(languages []Language, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, language := range languages {
		p.loaded = append(p.loaded, language.Code)
	}
	p.last = now
}

// state returns a copy of the codes loaded so far, and how long the rest will take at the pace so far;
// one second when there is no pace yet.
func (p *progress) state() (loaded []string, left time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	loaded = append([]string{}, p.loaded...)
	if len(loaded) == 0 {
		return loaded, time.Second
	}
	each := p.last.Sub(p.started) / time.Duration(len(loaded))
	return loaded, each * time.Duration(p.total-len(loaded))
}
