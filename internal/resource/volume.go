package resource

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// VolumeType says where the files of a volume come from.
type VolumeType string

const (
	// EmptyDir volumes are empty at first. The containers of a replica share them, and they are removed with it.
	EmptyDir VolumeType = "EmptyDir"
	// SecretFiles volumes have the app's secrets as files, which change when the secrets do.
	SecretFiles VolumeType = "Secret"
	// AzureFile and NfsAzureFile volumes are storages of the environment.
	AzureFile    VolumeType = "AzureFile"
	NfsAzureFile VolumeType = "NfsAzureFile"
)

// OfStorage says whether volumes of this type are storages of the environment.
func (t VolumeType) OfStorage() bool { return t == AzureFile || t == NfsAzureFile }

// Volume is a folder that the containers of a replica can mount.
type Volume struct {
	Name string
	Type VolumeType
	// Secrets are the files of a SecretFiles volume. Without any, each secret of the app is a file with its name.
	Secrets []SecretFile `json:",omitempty"`
	// Storage names a storage of the environment.
	Storage string `json:",omitempty"`
	// MountOptions are options of mount(8), separated by commas. Only "ro" has an effect here.
	MountOptions string `json:",omitempty"`
}

// SecretFile is a file with the value of a secret of the app.
type SecretFile struct {
	Secret string
	Path   string // in the volume
}

// ReadOnly says whether the mount options of a volume make it read-only.
func (v Volume) ReadOnly() bool { return slices.Contains(strings.Split(v.MountOptions, ","), "ro") }

// Files returns the files of a SecretFiles volume with their secrets. all has the names of the app's secrets.
func (v Volume) Files(all []string) map[string]string {
	files := map[string]string{}
	for _, f := range v.Secrets {
		files[path.Clean(f.Path)] = f.Secret
	}
	if len(v.Secrets) == 0 {
		for _, name := range all {
			files[name] = name
		}
	}
	return files
}

// VolumeMount mounts a volume, or a folder of it, in a container.
type VolumeMount struct {
	Volume  string
	Path    string // in the container
	SubPath string `json:",omitempty"` // in the volume
}

// Part returns the path in the volume that is mounted. It is "" for the whole volume, which a SubPath of "." means too.
func (m VolumeMount) Part() string {
	if p := path.Clean(m.SubPath); p != "." {
		return p
	}
	return ""
}

var volumeName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)

// ownPaths are the paths that the platform mounts in every container.
var ownPaths = []string{"/", "/proc", "/sys", "/dev", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}

func validateVolumes(t Template) []Fault {
	var faults []Fault
	seen := map[string]int{}
	for i, v := range t.Volumes {
		at := fmt.Sprintf("template.volumes[%d].name", i)
		if len(v.Name) > 63 || !volumeName.MatchString(v.Name) {
			faults = append(faults, Fault{codeValue, at, fmt.Sprintf("want 1 to 63 lower-case letters, digits and '-', starting and ending with a letter or digit, got %q", v.Name)})
		}
		if first, taken := seen[v.Name]; taken {
			faults = append(faults, Fault{codeValue, at, fmt.Sprintf("%q is the name of volumes[%d] already", v.Name, first)})
			continue
		}
		seen[v.Name] = i
	}
	for i, v := range t.Volumes {
		faults = append(faults, validateVolume(fmt.Sprintf("template.volumes[%d]", i), v)...)
	}
	check := func(list string, containers []Container) {
		for i, c := range containers {
			faults = append(faults, validateMounts(fmt.Sprintf("template.%s[%d].volumeMounts", list, i), c.Mounts, t.Volumes)...)
		}
	}
	check("containers", t.Containers)
	check("initContainers", t.InitContainers)
	return faults
}

// validateVolume checks the fields that only one type of volume has.
func validateVolume(field string, v Volume) []Fault {
	var faults []Fault
	bad := func(at, format string, args ...any) {
		faults = append(faults, Fault{codeValue, field + at, fmt.Sprintf(format, args...)})
	}
	if v.Type != SecretFiles && len(v.Secrets) > 0 {
		bad(".secrets", "want none in a volume of storageType %s: only those of storageType Secret have secrets", v.Type)
	}
	switch {
	case v.Type.OfStorage() && v.Storage == "":
		bad(".storageName", "want the name of a storage of the environment, got nothing")
	case !v.Type.OfStorage() && v.Storage != "":
		bad(".storageName", "want nothing in a volume of storageType %s, got %q", v.Type, v.Storage)
	}
	switch {
	case !v.Type.OfStorage() && v.MountOptions != "":
		bad(".mountOptions", "want nothing in a volume of storageType %s, got %q", v.Type, v.MountOptions)
	case len(v.MountOptions) > 1024 || !plainPath(v.MountOptions) || slices.Contains(strings.Split(v.MountOptions, ","), "") && v.MountOptions != "":
		bad(".mountOptions", "want options separated by commas, got %q", v.MountOptions)
	}
	return append(faults, validateSecretFiles(field+".secrets", v.Secrets)...)
}

// Azure's codes for mounts that are not possible.
const (
	codeMount     = "ContainerAppInvalidVolumeMount"
	codeMountPath = "ContainerAppInvalidMountPath"
)

// maxFileName is the longest name of a file on Linux (NAME_MAX).
const maxFileName = 255

func validateSecretFiles(field string, files []SecretFile) []Fault {
	var faults []Fault
	for i, f := range files {
		at := fmt.Sprintf("%s[%d].path", field, i)
		clean := path.Clean(f.Path)
		parts := strings.Split(f.Path, "/")
		if !plainPath(f.Path) || clean == "." || strings.HasPrefix(f.Path, "/") || slices.ContainsFunc(parts, func(p string) bool { return strings.HasPrefix(p, "..") || len(p) > maxFileName }) {
			faults = append(faults, Fault{codeValue, at, fmt.Sprintf(
				"want a path in the volume, as in tls/key.pem, that does not start with / and has no part that starts with '..', got %q", f.Path)})
			continue
		}
		for j, other := range files[:i] {
			if theirs := path.Clean(other.Path); clean == theirs {
				faults = append(faults, Fault{codeValue, at, fmt.Sprintf("%q is the path of secrets[%d] already", f.Path, j)})
			} else if inside(clean, theirs) || inside(theirs, clean) {
				faults = append(faults, Fault{codeValue, at, fmt.Sprintf("%q and %q, the path of secrets[%d], cannot both be there: one would be a file and a folder", f.Path, other.Path, j)})
			}
		}
	}
	return faults
}

func validateMounts(field string, mounts []VolumeMount, volumes []Volume) []Fault {
	var faults []Fault
	seen := map[string]int{}
	ofSecrets := func(m VolumeMount) bool {
		return slices.ContainsFunc(volumes, func(v Volume) bool { return v.Name == m.Volume && v.Type == SecretFiles })
	}
	for i, m := range mounts {
		bad := func(code, at, format string, args ...any) {
			faults = append(faults, Fault{code, fmt.Sprintf("%s[%d]%s", field, i, at), fmt.Sprintf(format, args...)})
		}
		if !slices.ContainsFunc(volumes, func(v Volume) bool { return v.Name == m.Volume }) {
			bad(codeMount, ".volumeName", "want the name of one of template.volumes, got %q", m.Volume)
		}
		if why := badMountPath(m.Path); why != "" {
			bad(codeMountPath, ".mountPath", "%s, got %q", why, m.Path)
		} else if first, taken := seen[path.Clean(m.Path)]; taken {
			bad(codeMountPath, ".mountPath", "%q is the path of volumeMounts[%d] already", m.Path, first)
		} else {
			seen[path.Clean(m.Path)] = i
			for j, outer := range mounts {
				if ofSecrets(outer) && inside(path.Clean(m.Path), path.Clean(outer.Path)) {
					bad(codeMountPath, ".mountPath", "%q is inside %q, the path of volumeMounts[%d]: nothing can be mounted in a volume of storageType Secret", m.Path, outer.Path, j)
				}
			}
			for _, own := range ownPaths {
				if ofSecrets(m) && inside(own, path.Clean(m.Path)) {
					bad(codeMountPath, ".mountPath", "the platform mounts %s, which cannot be in a volume of storageType Secret, got %q; mount it in a folder of its own, or one file of it with subPath", own, m.Path)
					break
				}
			}
		}
		if m.SubPath != "" && (strings.HasPrefix(m.SubPath, "/") || climbs(m.SubPath) || !plainPath(m.SubPath) || longPart(m.SubPath)) {
			bad(codeMount, ".subPath", "want a path in the volume without '..' and parts of more than 255 bytes that does not start with /, got %q", m.SubPath)
		}
	}
	return faults
}

// badMountPath returns what is wrong with the path of a mount, or "".
func badMountPath(p string) string {
	switch clean := path.Clean(p); {
	case !strings.HasPrefix(p, "/") || climbs(p) || !plainPath(p) || strings.Contains(p, ":") || longPart(p):
		return "want a path from / without '..', ':' and parts of more than 255 bytes"
	case slices.Contains(ownPaths, clean), inside(clean, "/proc"), inside(clean, "/sys"), inside(clean, "/dev") && clean != "/dev/shm":
		return "want a path that the platform does not mount itself"
	}
	return ""
}

// climbs says whether a path contains "..", even if it does not lead out of its folder: symbolic links, which the author
// of an image or the user of a volume can make, decide where ".." leads.
func climbs(p string) bool { return slices.Contains(strings.Split(p, "/"), "..") }

// longPart says whether a part of a path is too long for the name of a file.
func longPart(p string) bool {
	return slices.ContainsFunc(strings.Split(p, "/"), func(part string) bool { return len(part) > maxFileName })
}

// plainPath says whether a path is possible on Linux and readable in a message.
func plainPath(p string) bool {
	return len(p) <= 1024 && !strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r == 0x7f })
}

func inside(p, dir string) bool { return strings.HasPrefix(p, dir+"/") }
