package local

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"penstock/internal/atomicfile"
	"penstock/internal/resource"
	"penstock/internal/runtimes"
)

// life is what must be known about a replica of a revision after it has gone. It is stored in its own file, because the
// driver keeps nothing of a removed sandbox. docs/formats/replicas.md describes the file.
type life struct {
	Version  int
	Revision resource.ID
	Created  time.Time
	// Started is when the replica's first process started, and Ready is when it was first ready.
	Started time.Time `json:",omitzero"`
	Ready   time.Time `json:",omitzero"`
	// Told is when the replica was told to end. It is not restarted after that, even by a later process of the
	// platform.
	Told   time.Time `json:",omitzero"`
	Reason string    `json:",omitempty"` // why it ends
	// Ended is when the replica's last process ended. After that, what is left of the replica only has to be removed.
	Ended time.Time `json:",omitzero"`
}

const lifeVersion = 1

// maxEnds bounds the number of unacknowledged ends. The oldest are dropped first.
const maxEnds = 10_000

func (l life) end(replica string) runtimes.End {
	return runtimes.End{
		Replica: replica, Revision: l.Revision, Created: l.Created, Started: l.Started, Ready: l.Ready, Ended: l.Ended, Reason: l.Reason,
	}
}

// lives stores the files of replicas in a folder. Without a folder, they are only in the engine's memory.
type lives struct{ folder string }

func (s lives) path(replica string) string { return filepath.Join(s.folder, replica+".json") }

// write stores a life. A power loss ends all processes of the machine, so only an end must survive one.
func (s lives) write(replica string, l life) error {
	if s.folder == "" {
		return nil
	}
	l.Version = lifeVersion
	text, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if !l.Ended.IsZero() {
		return atomicfile.Write(s.path(replica), text, 0o600)
	}
	return atomicfile.WriteUnsynced(s.path(replica), text, 0o600)
}

func (s lives) remove(replica string) error {
	if s.folder == "" {
		return nil
	}
	if err := os.Remove(s.path(replica)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// read returns all lives by replica, and the errors by file.
func (s lives) read() (all map[string]life, bad map[string]error, err error) {
	all, bad = map[string]life{}, map[string]error{}
	if s.folder == "" {
		return all, bad, nil
	}
	if err := os.MkdirAll(s.folder, 0o700); err != nil {
		return nil, nil, err
	}
	entries, err := os.ReadDir(s.folder)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		replica, ok := strings.CutSuffix(e.Name(), ".json")
		path := filepath.Join(s.folder, e.Name())
		if !ok || strings.HasPrefix(e.Name(), ".") {
			_ = os.Remove(path) // a partial file of a process that was killed
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, nil, err
		}
		l, err := parseLife(text)
		if err != nil {
			bad[path] = err
			continue
		}
		all[replica] = l
	}
	return all, bad, nil
}

func parseLife(text []byte) (l life, err error) {
	if err := json.Unmarshal(text, &l); err != nil {
		return l, err
	}
	if l.Version != lifeVersion {
		return l, fmt.Errorf("want version %d, got %d", lifeVersion, l.Version)
	}
	if !l.Revision.Is(resource.TypeRevision) {
		return l, fmt.Errorf("want a %s, got %q", resource.TypeRevision, l.Revision)
	}
	return l, nil
}

// Ended implements runtimes.Runtime.
func (e *Engine) Ended(ctx context.Context) ([]runtimes.End, error) {
	if err := e.wait(ctx); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	list := make([]runtimes.End, 0, len(e.ends))
	for _, end := range e.ends {
		list = append(list, end)
	}
	slices.SortFunc(list, func(a, b runtimes.End) int {
		return cmp.Or(a.Ended.Compare(b.Ended), cmp.Compare(a.Replica, b.Replica))
	})
	return list, nil
}

// Acknowledge implements runtimes.Runtime.
func (e *Engine) Acknowledge(ctx context.Context, replicas ...string) error {
	if err := e.wait(ctx); err != nil {
		return err
	}
	for _, replica := range replicas {
		e.mu.Lock()
		_, known := e.ends[replica]
		e.mu.Unlock()
		if !known {
			continue // already acknowledged, or not ended
		}
		if err := e.lives.remove(replica); err != nil {
			return fmt.Errorf("acknowledge the end of replica %q: %w", replica, err)
		}
		e.mu.Lock()
		delete(e.ends, replica)
		e.mu.Unlock()
	}
	return nil
}

// addEnd adds an end to the list. It returns the replicas whose ends it dropped because there were too many. The caller
// holds mu.
func (e *Engine) addEnd(end runtimes.End) (dropped []string) {
	e.ends[end.Replica] = end
	for len(e.ends) > maxEnds {
		oldest := end
		for _, other := range e.ends {
			if other.Ended.Before(oldest.Ended) {
				oldest = other
			}
		}
		delete(e.ends, oldest.Replica)
		dropped = append(dropped, oldest.Replica)
	}
	return dropped
}

// drop forgets unacknowledged ends for which there is no room.
func (e *Engine) drop(replicas []string) {
	for _, replica := range replicas {
		e.cfg.Log.Error("too many ends of replicas wait to be acknowledged; the oldest is forgotten", "replica", replica, "limit", maxEnds)
		if err := e.lives.remove(replica); err != nil {
			e.cfg.Log.Warn("the record of a replica cannot be removed", "replica", replica, "err", err)
		}
	}
}

// adoptLives takes over what is known about earlier replicas: the lives of those that still exist, and the ends of
// those that do not.
func (e *Engine) adoptLives(listed []SandboxStatus) (map[string]life, error) {
	all, bad, err := e.lives.read()
	if err != nil {
		return nil, fmt.Errorf("read the records of replicas: %w", err)
	}
	for path, err := range bad {
		e.cfg.Log.Error("the record of a replica cannot be read; its end is not reported", "file", path, "err", err)
	}
	there := map[string]bool{}
	for _, s := range listed {
		there[s.Replica] = true
	}
	for replica, l := range all {
		if there[replica] {
			continue
		}
		if l.Started.IsZero() { // it never ran
			if err := e.lives.remove(replica); err != nil {
				return nil, fmt.Errorf("remove the record of replica %q: %w", replica, err)
			}
			continue
		}
		if l.Ended.IsZero() {
			l.Ended, l.Reason = time.Now().UTC(), runtimes.EndGone
			if err := e.lives.write(replica, l); err != nil {
				return nil, fmt.Errorf("write the record of replica %q: %w", replica, err)
			}
		}
		e.mu.Lock()
		dropped := e.addEnd(l.end(replica))
		e.changed(l.Revision)
		e.mu.Unlock()
		e.drop(dropped)
	}
	return all, nil
}

// adoptLife sets a keeper to what is known about its replica. A replica that was told to end continues to end.
func (k *keeper) adoptLife(l life) {
	if k.once.set {
		return
	}
	if l.Version != 0 {
		k.life = l
	}
	for _, c := range k.containers {
		if s := c.started.UTC().Round(0); !c.started.IsZero() && (k.life.Started.IsZero() || s.Before(k.life.Started)) {
			k.life.Started = s
		}
	}
	if k.life.Told.IsZero() {
		return
	}
	k.ending, k.view = true, stopping(k.view)
	for _, c := range k.containers {
		c.stopProbes = func() {} // no probes run
	}
	close(k.end)
}

// keepLife stores what is known about the replica. If that fails, its end may be reported less exactly after a crash,
// so a full disk stops nothing.
func (k *keeper) keepLife() {
	if k.once.set {
		return
	}
	if err := k.e.lives.write(k.name, k.life); err != nil {
		k.e.cfg.Log.Error("the record of a replica cannot be written; its end may be lost in a crash", "replica", k.name, "err", err)
	}
}

// startedFirst records the first start of a process of the replica.
func (k *keeper) startedFirst(at time.Time) {
	if k.life.Started.IsZero() {
		k.life.Started = at.UTC().Round(0)
		k.keepLife()
	}
}

// readyFirst records that the replica is ready.
func (k *keeper) readyFirst(at time.Time) {
	if k.life.Ready.IsZero() {
		k.life.Ready = at.UTC().Round(0)
		k.keepLife()
	}
}

// told records that the replica is told to end, before any part of it ends, and returns the time.
func (k *keeper) told() time.Time {
	if k.life.Told.IsZero() {
		k.e.mu.Lock()
		k.life.Reason = k.endsFor
		k.e.mu.Unlock()
		k.life.Told = time.Now().UTC().Round(0)
		if k.touched {
			k.keepLife()
		}
	}
	return k.life.Told
}

// keepTold records that the replica is told to end, if it is and the engine ends before it could tell it. Otherwise the
// next process of the platform would restart what ends in between.
func (k *keeper) keepTold() {
	select {
	case <-k.end:
		if !k.once.set {
			k.told()
		}
	default:
	}
}

// endedForGood records when the replica's last process ended, before the sandbox and its containers are removed.
func (k *keeper) endedForGood() {
	if !k.life.Ended.IsZero() || k.life.Started.IsZero() {
		return
	}
	ended := time.Time{}
	for _, c := range k.containers {
		if c.up() {
			ended = time.Now() // nobody saw it end
			break
		}
		if c.last != nil && c.last.At.After(ended) {
			ended = c.last.At
		}
	}
	if ended.IsZero() {
		ended = time.Now()
	}
	k.life.Ended = ended.UTC().Round(0)
	k.keepLife()
}
