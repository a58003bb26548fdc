package oci

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// Progress is the progress of a pull.
type Progress struct {
	Image string
	Began time.Time
	Total int64 // bytes of the image; 0 while it is not known
	Done  int64 // bytes received or copied so far
	Here  int64 // bytes that were in the store before
	// Wire is the number of bytes received over the network, including what a registry without ranges sent twice.
	Wire  int64
	Blobs int
	Whole int // blobs that are complete
}

// pulling is a pull in progress.
type pulling struct {
	mu  sync.Mutex
	far Progress
}

func (p *pulling) change(f func(far *Progress)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.far)
}

func (p *pulling) now() (far Progress) {
	p.change(func(p *Progress) { far = *p })
	return far
}

// Active returns the progress of all current pulls, by name.
func (p *Puller) Active() []Progress {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := []Progress{}
	for one := range p.pulls {
		list = append(list, one.now())
	}
	slices.SortFunc(list, func(a, b Progress) int { return cmp.Compare(a.Image, b.Image) })
	return list
}
