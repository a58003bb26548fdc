package fake

import (
	"maps"
	"path"
	"strings"
	"sync"

	"penstock/internal/resource"
	"penstock/internal/runtimes/local"
)

// files are the contents of the files that were written, by volume, or by container if they are in none.
type files map[string]map[string]string

// disk is all files that a container sees: those of its sandbox, and the storages that all sandboxes share.
type disk struct {
	mu       *sync.Mutex
	files    files
	storages *disk
}

// place returns where a container's file is: in the volume with the longest mount path above it, or in the container.
func (d disk) place(c local.Container, name string) (in disk, where, file string, writable bool) {
	name = path.Clean(name)
	in, where, file, writable = d, "container "+c.ID, name, true
	longest := -1
	for _, m := range c.Mounts {
		at := path.Clean(m.Path)
		if rest, ok := strings.CutPrefix(name, at+"/"); ok && len(at) > longest {
			longest, where, file = len(at), "volume "+m.Volume, path.Join("/", m.Part(), rest)
			in, writable = d, m.Type != resource.SecretFiles && !m.Storage.ReadOnly
			if m.Type.OfStorage() {
				in, where = *d.storages, "storage "+m.Storage.Folder
			}
		}
	}
	return in, where, file, writable
}

// replace makes a volume contain exactly these files.
func (d disk) replace(where string, secrets map[string]resource.Secret) (changed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	next := map[string]string{}
	for name, secret := range secrets {
		next[path.Join("/", name)] = secret.Reveal()
	}
	changed = !maps.Equal(next, d.files[where])
	d.files[where] = next
	return changed
}

func (d disk) write(c local.Container, name, text string) (ok bool) {
	d, where, file, writable := d.place(c, name)
	if !writable {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.files[where] == nil {
		d.files[where] = map[string]string{}
	}
	d.files[where][file] = text
	return true
}

func (d disk) read(c local.Container, name string) (text string, ok bool) {
	d, where, file, _ := d.place(c, name)
	d.mu.Lock()
	defer d.mu.Unlock()
	text, ok = d.files[where][file]
	return text, ok
}

// forget removes the files of a container that are in no volume.
func (d disk) forget(c local.Container) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.files, "container "+c.ID)
}
