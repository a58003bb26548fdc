package build

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// debianProgress describes what mmdebstrap does, from its messages (with --verbose, those of apt and dpkg too) and from what
// passes through the proxy for packages. Its methods are safe for concurrent use.
type debianProgress struct {
	tell func(detail string)

	mu      sync.Mutex
	phase   string
	total   int   // packages to install
	got     int   // packages that apt has
	kept    int   // of these, packages that were not downloaded
	bytes   int64 // downloaded
	touched int   // packages that the current phase has begun
}

var (
	newlyInstalled = regexp.MustCompile(`^\d+ upgraded, (\d+) newly installed`)
	// aPackage is a message of dpkg about a package.
	aPackage = regexp.MustCompile(`^(Unpacking|Setting up) ([^ :]+)`)
)

// phases have the messages of mmdebstrap 1.3 with which steps begin that take long.
var phases = map[string]string{
	"I: running apt-get update...":           "reading the archive's lists",
	"I: downloading packages with apt...":    "downloading",
	"I: extracting archives...":              "extracting",
	"I: installing essential packages...":    "installing",
	"I: installing remaining packages in...": "installing",
	"I: creating tarball...":                 "packing",
}

// line takes a line of the tool's messages.
func (p *debianProgress) line(line string) {
	p.mu.Lock()
	switch found, about := newlyInstalled.FindStringSubmatch(line), aPackage.FindStringSubmatch(line); {
	case phases[line] != "":
		p.phase, p.touched = phases[line], 0
	case found != nil:
		p.total, _ = strconv.Atoi(found[1]) // digits
	case about != nil:
		if phase := strings.ToLower(about[1]); !strings.HasPrefix(p.phase, phase) {
			p.touched = 0
			p.phase = phase
		}
		p.touched++
		p.phase = strings.ToLower(about[1]) + " " + about[2]
	default:
		p.mu.Unlock()
		return
	}
	detail := p.detail()
	p.mu.Unlock()
	p.tell(detail)
}

// package counts a part of a package that apt gets.
func (p *debianProgress) part(n int64, whole, cached bool) {
	p.mu.Lock()
	if !cached {
		p.bytes += n
	}
	if whole {
		p.got++
		if cached {
			p.kept++
		}
	}
	detail := p.detail()
	p.mu.Unlock()
	p.tell(detail)
}

func (p *debianProgress) detail() string {
	all := ""
	if p.total > 0 {
		all = fmt.Sprintf(" of %d", p.total)
	}
	text := p.phase
	switch {
	case p.touched > 0 && p.touched <= p.total:
		text += fmt.Sprintf(" (%d%s)", p.touched, all)
	case p.got > 0:
		text += fmt.Sprintf(", %d%s packages", p.got, all)
	}
	if p.bytes > 0 || p.kept > 0 {
		text += fmt.Sprintf(", %.1f MiB downloaded", float64(p.bytes)/(1<<20))
	}
	if p.kept > 0 {
		text += fmt.Sprintf(", %d from the cache", p.kept)
	}
	return strings.TrimPrefix(text, ", ")
}
