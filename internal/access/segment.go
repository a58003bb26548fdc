package access

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// segmentHead is what a segment begins with: its format and version.
const segmentHead = "penstock-requests 1\n"

const (
	segmentEnd   = ".requests"
	segmentStamp = "20060102T150405.000000"
)

// segmentName has the time of a segment's first block and the process that writes it.
var segmentName = regexp.MustCompile(`^\d{8}T\d{6}\.\d{6}-(\d+)\.requests$`)

// segment is a file as it was found.
type segment struct {
	path    string
	ingress string // names the process that has written it
	size    int64
	written time.Time // when it last grew
}

// segments are those of all ingresses, the oldest first.
func segments(dir string) ([]segment, error) {
	entries, err := os.ReadDir(dir) // in order of their names
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // no ingress has been here yet
	}
	if err != nil {
		return nil, err
	}
	var all []segment
	for _, entry := range entries {
		parts := segmentName.FindStringSubmatch(entry.Name())
		if parts == nil {
			continue
		}
		info, err := entry.Info()
		if errors.Is(err, os.ErrNotExist) {
			continue // removed in this moment
		}
		if err != nil {
			return nil, err
		}
		all = append(all, segment{filepath.Join(dir, entry.Name()), "ingress-" + parts[1], info.Size(), info.ModTime()})
	}
	slices.SortFunc(all, func(a, b segment) int { return strings.Compare(a.path, b.path) })
	return all, nil
}

// createSegment begins a segment of this process.
func createSegment(dir string, now time.Time) (*os.File, error) {
	for ; ; now = now.Add(time.Microsecond) {
		name := fmt.Sprintf("%s-%d%s", now.UTC().Format(segmentStamp), os.Getpid(), segmentEnd)
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if _, err := f.WriteString(segmentHead); err != nil {
			return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
		return f, nil
	}
}
