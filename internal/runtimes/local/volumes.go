package local

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"penstock/internal/resource"
)

// volume returns the volume with that name in the replica's template.
func (k *keeper) volume(name string) resource.Volume {
	volumes := k.rev.Template.Volumes
	i := slices.IndexFunc(volumes, func(v resource.Volume) bool { return v.Name == name })
	if i < 0 {
		return resource.Volume{Name: name, Type: resource.EmptyDir}
	}
	return volumes[i]
}

// mounts returns a container's mounts, and ensures that what they mount exists.
func (k *keeper) mounts(ctx context.Context, spec resource.Container) ([]Mount, error) {
	var list []Mount
	done := map[string]bool{}
	for _, m := range spec.Mounts {
		v := k.volume(m.Volume)
		if v.Type == resource.SecretFiles && !done[v.Name] {
			changed, err := k.putSecrets(ctx, v)
			if err != nil {
				return nil, fmt.Errorf("volume %q: %w", v.Name, err)
			}
			if changed {
				k.outdate(v.Name)
			}
			done[v.Name] = true
		}
		mount := Mount{VolumeMount: m, Type: v.Type}
		if v.Type.OfStorage() {
			var err error
			if mount.Storage, err = k.e.cfg.Storage(ctx, k.rev.Environment, v.Storage); err != nil {
				return nil, fmt.Errorf("volume %q: storage %q: %w", v.Name, v.Storage, err)
			}
			mount.Storage.ReadOnly = mount.Storage.ReadOnly || v.ReadOnly()
		}
		list = append(list, mount)
	}
	return list, nil
}

// outdate makes the keeper recreate the containers that mount the volume and have not been started, because its files
// have changed: a mount of a path in it shows the files as they were when the container was created.
func (k *keeper) outdate(volume string) {
	for _, c := range k.containers {
		if slices.ContainsFunc(c.spec.Mounts, func(m resource.VolumeMount) bool { return m.Volume == volume }) {
			c.fresh = false
		}
	}
}

// noStorage is the default of Config.Storage. It finds no storage.
func noStorage(context.Context, resource.ID, string) (Storage, error) {
	return Storage{}, resource.ErrNotFound
}

// putSecrets updates the files of a volume of secrets.
func (k *keeper) putSecrets(ctx context.Context, v resource.Volume) (changed bool, err error) {
	secrets, err := k.e.cfg.Secrets(ctx, k.rev.App())
	if err != nil {
		return false, err
	}
	files := map[string]resource.Secret{}
	for path, name := range v.Files(slices.Collect(maps.Keys(secrets))) {
		if files[path], err = secretOf(k.rev.App(), secrets, name); err != nil {
			return false, err
		}
	}
	return k.e.cfg.Driver.PutSecrets(ctx, k.name, v.Name, files)
}

// lookAgain tells the keeper that the secrets that its replica has as files may have changed.
func (k *keeper) lookAgain() {
	if slices.ContainsFunc(k.rev.Template.Volumes, func(v resource.Volume) bool { return v.Type == resource.SecretFiles }) {
		k.inbox.put(note{secrets: true})
	}
}

// refresh updates the secrets that containers have as files. Everything else that they were started with stays
// unchanged.
func (k *keeper) refresh(ctx context.Context) {
	if !k.sandbox || k.once.state != "" {
		return // a start updates them, or there will be no start
	}
	var problem string
	for _, v := range k.rev.Template.Volumes {
		if v.Type != resource.SecretFiles || !k.mounted(v.Name) {
			continue
		}
		changed, err := k.putSecrets(ctx, v)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			problem = fmt.Sprintf("Volume '%s' keeps the secrets that it has: %v", v.Name, err)
		case changed:
			k.outdate(v.Name)
			k.tell(normal, "SecretVolumeUpdated", 0, "Volume '%s' has the secrets as they are now", v.Name)
		}
	}
	if problem != "" && problem != k.stale {
		k.tell(warning, "SecretVolumeNotUpdated", 0, "%s", problem)
	}
	k.stale = problem
}

// mounted reports whether a container of the replica mounts a volume.
func (k *keeper) mounted(volume string) bool {
	return slices.ContainsFunc(k.containers, func(c *container) bool {
		return slices.ContainsFunc(c.spec.Mounts, func(m resource.VolumeMount) bool { return m.Volume == volume })
	})
}

// secretOf returns a secret of an app.
func secretOf(app resource.ID, secrets map[string]resource.Secret, name string) (resource.Secret, error) {
	value, ok := secrets[name]
	if !ok {
		return "", fmt.Errorf("secret %q of app %s: %w; set it, or deploy a revision that does not refer to it", name, app.Base(), resource.ErrNotFound)
	}
	return value, nil
}
