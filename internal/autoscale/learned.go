package autoscale

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"time"

	"penstock/internal/atomicfile"
	"penstock/internal/scale"
)

// The learned request and start times survive a restart in a file: docs/formats/learned.md. The rest of the deciders'
// state does not. What happened while the server was down is unknown, so the count is held for one window.

// saveEvery is how often the file is written when something has changed.
const saveEvery = 30 * time.Second

const (
	learnedFormat  = "penstock-learned"
	learnedVersion = 1
)

type learnedFile struct {
	Format    string             `json:"format"`
	Version   int                `json:"version"`
	Revisions map[string]learned `json:"revisions"` // by the resource ID in lower case
}

type learned struct {
	Service time.Duration `json:"serviceNs"`
	Start   time.Duration `json:"startNs"`
}

// load reads the file. It does not exist before the first start.
func load(path string) (map[string]learned, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return map[string]learned{}, nil
	}
	if err != nil {
		return nil, err
	}
	var f learnedFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if f.Format != learnedFormat || f.Version != learnedVersion {
		return nil, fmt.Errorf("%s: want %s version %d, got %q version %d", path, learnedFormat, learnedVersion, f.Format, f.Version)
	}
	for key, l := range f.Revisions {
		if l.Service < 0 || l.Start < 0 {
			return nil, fmt.Errorf("%s: %s: want times of at least 0, got %v and %v", path, key, l.Service, l.Start)
		}
	}
	if f.Revisions == nil {
		f.Revisions = map[string]learned{}
	}
	return f.Revisions, nil
}

// save writes the file if its content would change. Only one goroutine calls it.
func (s *Scaler) save() {
	all := map[string]learned{}
	s.mu.Lock()
	maps.Copy(all, s.learned) // revisions that reconcile has not asked for since the start
	for key, r := range s.revisions {
		if l := r.decider.State().Learned; l.Service > 0 || l.Start > 0 {
			all[key] = learned{l.Service, l.Start}
		}
	}
	s.mu.Unlock()
	b, err := json.Marshal(learnedFile{learnedFormat, learnedVersion, all})
	if err == nil && !bytes.Equal(b, s.saved) {
		if err = atomicfile.Write(s.cfg.Learned, b, 0o600); err == nil {
			s.saved = b
		}
	}
	if err != nil {
		s.cfg.Log.Warn("the measured request and start times could not be saved; the next save tries again", "err", err)
	}
}

// resumed returns the state that a revision's decider starts with. It is called with mu held.
func (s *Scaler) resumed(key string) scale.State {
	l := s.learned[key]
	delete(s.learned, key)
	return scale.State{Learned: scale.Learned{Service: l.Service, Start: l.Start}}
}
