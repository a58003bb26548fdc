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
	// IgnoreFile names files that no image gets, as Docker has it (docs.docker.com/build/concepts/context, ".dockerignore
	// files").
	IgnoreFile = ".dockerignore"
	// maxIgnoreFile and maxIgnored are far above what people write. Each file of a layer is matched with each pattern.
	maxIgnoreFile = 64 << 10
	maxIgnored    = 500
)

// ignored are the patterns of an ignore file; none when nil.
type ignored struct {
	patterns *patternmatcher.PatternMatcher
}

func readIgnored(dir *os.Root) (*ignored, error) {
	f, err := dir.Open(IgnoreFile)
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
	patterns, err := patternmatcher.New(lines)
	if err != nil {
		return nil, fmt.Errorf("%s: want patterns of paths, one a line: %w", IgnoreFile, err)
	}
	return &ignored{patterns}, nil
}

// matches tells whether a path is left out, and if so whether something below it may not be. What an image.yaml names
// itself is always taken.
func (i *ignored) matches(name string, named bool) (out, below bool, err error) {
	if i == nil || named {
		return false, false, nil
	}
	if out, err = i.patterns.MatchesOrParentMatches(name); err != nil {
		return false, false, fmt.Errorf("%s: %w", IgnoreFile, err)
	}
	return out, i.patterns.Exclusions(), nil
}
