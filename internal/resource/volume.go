package resource

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// VolumeType says where what is in a volume comes from.
type VolumeType string

// EmptyDir volumes are empty at first, shared by the containers of a replica, and gone with it.
const EmptyDir VolumeType = "EmptyDir"

// Volume is a folder that the containers of a replica may mount.
type Volume struct {
	Name string
	Type VolumeType
}

// VolumeMount puts a volume, or a folder in it, into a container.
type VolumeMount struct {
	Volume  string
	Path    string // in the container
	SubPath string `json:",omitempty"` // in the volume
}

var volumeName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)

// ownPaths are those that the platform mounts into every container.
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
	check := func(list string, containers []Container) {
		for i, c := range containers {
			faults = append(faults, validateMounts(fmt.Sprintf("template.%s[%d].volumeMounts", list, i), c.Mounts, t.Volumes)...)
		}
	}
	check("containers", t.Containers)
	check("initContainers", t.InitContainers)
	return faults
}

func validateMounts(field string, mounts []VolumeMount, volumes []Volume) []Fault {
	var faults []Fault
	seen := map[string]int{}
	for i, m := range mounts {
		bad := func(at, format string, args ...any) {
			faults = append(faults, Fault{codeValue, fmt.Sprintf("%s[%d]%s", field, i, at), fmt.Sprintf(format, args...)})
		}
		if !slices.ContainsFunc(volumes, func(v Volume) bool { return v.Name == m.Volume }) {
			bad(".volumeName", "want the name of one of template.volumes, got %q", m.Volume)
		}
		if why := badMountPath(m.Path); why != "" {
			bad(".mountPath", "%s, got %q", why, m.Path)
		} else if first, taken := seen[path.Clean(m.Path)]; taken {
			bad(".mountPath", "%q is the path of volumeMounts[%d] already", m.Path, first)
		} else {
			seen[path.Clean(m.Path)] = i
		}
		if m.SubPath != "" && (strings.HasPrefix(m.SubPath, "/") || climbs(m.SubPath) || !plainPath(m.SubPath)) {
			bad(".subPath", "want a path in the volume without '..' that does not start with /, got %q", m.SubPath)
		}
	}
	return faults
}

// badMountPath says what is wrong with the path of a mount; "" when nothing is.
func badMountPath(p string) string {
	switch clean := path.Clean(p); {
	case !strings.HasPrefix(p, "/") || climbs(p) || !plainPath(p) || strings.Contains(p, ":"):
		return "want a path from / without '..' and ':'"
	case slices.Contains(ownPaths, clean), inside(clean, "/proc"), inside(clean, "/sys"), inside(clean, "/dev") && clean != "/dev/shm":
		return "want a path that the platform does not mount itself"
	}
	return ""
}

// climbs says whether a path goes up anywhere, even if it comes down again: which folder it leaves then is decided by
// symbolic links that the author of an image or the user of a volume made.
func climbs(p string) bool { return slices.Contains(strings.Split(p, "/"), "..") }

// plainPath says whether a path can be one of Linux and is readable in a message.
func plainPath(p string) bool {
	return len(p) <= 1024 && !strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r == 0x7f })
}

func inside(p, dir string) bool { return strings.HasPrefix(p, dir+"/") }
