package oci

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// Progress is how far the pull of an image has come.
type Progress struct {
	Image string    `json:"image"`
	Began time.Time `json:"began"`
	Total int64     `json:"total"` // bytes of the image; 0 while it is not known
	Done  int64     `json:"done"`  // that have come now
	Here  int64     `json:"here"`  // that were here before
	// Wire is what came over the network, with what a registry that knows no ranges sent twice.
	Wire  int64 `json:"wire"`
	Blobs int   `json:"blobs"`
	Whole int   `json:"whole"` // blobs that are there
}

// pulling is a pull under way.
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

// Active lists the pulls under way, by name.
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
