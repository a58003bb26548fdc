package store

import (
	"maps"
	"slices"
	"sort"
	"strings"
	"sync"
)

// cache holds the documents of one table as they were last committed, decoded. Otherwise a list of a thousand apps at
// every pass would spend all its time on JSON. Only this process writes the file.
//
// The first reader fills it and every write updates it. A value in it is never changed, only replaced.
type cache[T any] struct {
	mu      sync.RWMutex
	loaded  bool
	changes uint64 // number of writes; a reader that a write has overtaken does not fill the cache
	// recent are the keys of the newest writes, the last of which has the number changes.
	recent []string
	keys   []string
	values map[string]T
}

// get looks up a key. known is false if the table must be read first.
func (c *cache[T]) get(key string) (v T, exists, known bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	v, exists = c.values[key]
	return v, exists, c.loaded
}

// list returns the values in a scope, ordered by key.
func (c *cache[T]) list(in Scope) (all []T, known bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if !c.loaded {
		return nil, false
	}
	return pick(c.keys, c.values, in), true
}

// pick returns the values in a scope. keys are sorted.
func pick[T any](keys []string, values map[string]T, in Scope) (all []T) {
	prefix := in.prefix()
	from, _ := slices.BinarySearch(keys, prefix)
	to := from + sort.Search(len(keys)-from, func(i int) bool { return !strings.HasPrefix(keys[from+i], prefix) })
	if from == to {
		return nil
	}
	all = make([]T, 0, to-from)
	for _, key := range keys[from:to] {
		if in.Subscription != "" || in.Group == "" || strings.Contains(key, strings.ToLower("/resourceGroups/"+in.Group+"/")) {
			all = append(all, values[key])
		}
	}
	return all
}

// prefix is what the keys of all resources in the scope start with.
func (in Scope) prefix() string {
	switch {
	case !in.Parent.IsZero():
		return in.Parent.Key() + "/"
	case in.Subscription == "":
		return ""
	case in.Group == "":
		return strings.ToLower("/subscriptions/" + in.Subscription + "/")
	}
	return strings.ToLower("/subscriptions/" + in.Subscription + "/resourceGroups/" + in.Group + "/")
}

// version returns the version to pass to fill with what is read from now on.
func (c *cache[T]) version() uint64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.changes
}

// fill stores the whole table, in the order of its keys, unless it was written since that version.
func (c *cache[T]) fill(version uint64, keys []string, values map[string]T) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.loaded && c.changes == version {
		c.loaded, c.keys, c.values = true, slices.Clone(keys), maps.Clone(values)
	}
}

// maxRecent limits the memory for recent writes. A reader that has missed more reads the whole table.
const maxRecent = 1024

// wrote records a write. The caller holds mu.
func (c *cache[T]) wrote(key string) {
	if len(c.recent) == maxRecent {
		c.recent = slices.Clone(c.recent[maxRecent/2:])
	}
	c.changes, c.recent = c.changes+1, append(c.recent, key)
}

// since returns the keys that were written after a version, and the current version. complete is false if they are not
// known or the documents are not in memory.
func (c *cache[T]) since(version uint64) (keys []string, now uint64, complete bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	n := c.changes - version
	if !c.loaded || version > c.changes || n > uint64(len(c.recent)) {
		return nil, c.changes, false
	}
	if n == 0 {
		return nil, c.changes, true
	}
	return slices.Clone(c.recent[len(c.recent)-int(n):]), c.changes, true
}

func (c *cache[T]) put(key string, v T) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wrote(key)
	if !c.loaded {
		return
	}
	if at, found := slices.BinarySearch(c.keys, key); !found {
		c.keys = slices.Insert(c.keys, at, key)
	}
	c.values[key] = v
}

func (c *cache[T]) remove(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wrote(key)
	if at, found := slices.BinarySearch(c.keys, key); found {
		c.keys = slices.Delete(c.keys, at, at+1)
	}
	delete(c.values, key)
}

// forget makes the next reader read the file, because the outcome of a write is unknown.
func (c *cache[T]) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changes++
	c.recent = nil // what was written is not known
	c.loaded, c.keys, c.values = false, nil, nil
}
