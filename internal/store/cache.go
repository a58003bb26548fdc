package store

import (
	"maps"
	"slices"
	"sort"
	"strings"
	"sync"
)

// cache holds the documents of one table as they were last committed, decoded: who lists a thousand apps at every look
// would else spend all its time on JSON. This process is the only one that writes the file.
//
// It is filled by the first reader and kept up by every write. A value is never changed once it is in here, only replaced.
type cache[T any] struct {
	mu      sync.RWMutex
	loaded  bool
	changes uint64 // counts writes; a reader that was overtaken by one keeps what it read to itself
	keys    []string
	values  map[string]T
}

// get looks a key up. known is false when the table has to be read.
func (c *cache[T]) get(key string) (v T, exists, known bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	v, exists = c.values[key]
	return v, exists, c.loaded
}

// list is what is in a scope, by key.
func (c *cache[T]) list(in Scope) (all []T, known bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if !c.loaded {
		return nil, false
	}
	return pick(c.keys, c.values, in), true
}

// pick takes those in a scope of all, whose sorted keys are given.
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

// prefix is what the keys of all resources in the scope begin with.
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

// version is what fill has to be given with what is read from now on.
func (c *cache[T]) version() uint64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.changes
}

// fill takes the whole table, in the order of its keys, unless it was written since that version.
func (c *cache[T]) fill(version uint64, keys []string, values map[string]T) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.loaded && c.changes == version {
		c.loaded, c.keys, c.values = true, slices.Clone(keys), maps.Clone(values)
	}
}

func (c *cache[T]) put(key string, v T) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changes++
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
	c.changes++
	if at, found := slices.BinarySearch(c.keys, key); found {
		c.keys = slices.Delete(c.keys, at, at+1)
	}
	delete(c.values, key)
}

// forget makes the next reader look into the file: a write has ended and nobody knows how.
func (c *cache[T]) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changes++
	c.loaded, c.keys, c.values = false, nil, nil
}
