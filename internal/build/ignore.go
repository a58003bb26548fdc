package build

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

const (
	// IgnoreFile lists files to leave out of images, as in Docker (docs.docker.com/build/concepts/context, ".dockerignore
	// files").
	IgnoreFile = ".dockerignore"
	// maxIgnoreFile and maxIgnored are far above real files. They are limited because each file of a layer is matched with
	// each pattern.
	maxIgnoreFile = 64 << 10
	maxIgnored    = 500
)

// ignored holds the patterns of an ignore file. It is nil if there are none.
type ignored struct {
	patterns *patternmatcher.PatternMatcher
}

func readIgnored(dir *os.Root) (*ignored, error) {
	f, err := openFile(dir, IgnoreFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	in := &io.LimitedReader{R: f, N: maxIgnoreFile + 1}
	lines, err := ignorefile.ReadAll(in)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", IgnoreFile, err)
	}
	if in.N == 0 {
		return nil, fmt.Errorf("%s: want at most %d bytes, got more", IgnoreFile, maxIgnoreFile)
	}
	if len(lines) > maxIgnored {
		return nil, fmt.Errorf("%s: want at most %d patterns, got %d", IgnoreFile, maxIgnored, len(lines))
	}
	return newIgnored(lines)
}

func newIgnored(lines []string) (*ignored, error) {
	patterns, err := patternmatcher.New(lines)
	if err != nil {
		return nil, fmt.Errorf("%s: want path patterns, one per line: %w", IgnoreFile, err)
	}
	return &ignored{patterns}, nil
}

// matches reports whether a path is left out, and if so, whether something below it may be included. Files that an
// image.yaml names directly are always included.
func (i *ignored) matches(name string, named bool) (out, below bool, err error) {
	if i == nil || named {
		return false, false, nil
	}
	if out, err = i.patterns.MatchesOrParentMatches(name); err != nil {
		return false, false, fmt.Errorf("%s: %w", IgnoreFile, err)
	}
	return out, i.patterns.Exclusions(), nil
}
