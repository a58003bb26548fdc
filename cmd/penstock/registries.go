package main

import (
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

var (
	registryHost   = regexp.MustCompile(`^([a-z0-9]([a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:]+\])(:[0-9]{1,5})?$`)
	registryPrefix = regexp.MustCompile(`^[a-z0-9]+([._-][a-z0-9]+)*(/[a-z0-9]+([._-][a-z0-9]+)*)*$`)
)

// optionalFile returns a setting whose value is a file's path or empty.
func optionalFile(name, usage string, field func(*Config) *string) setting {
	s := text(name, usage, field)
	s.set = func(c *Config, v string) (err error) {
		if v != "" {
			v, err = filepath.Abs(v) // the roles may have other working directories
		}
		*field(c) = v
		return err
	}
	return s
}

// parseHosts parses a list such as "registry.example:5000,localhost:5001".
func parseHosts(s string) ([]string, error) {
	var list []string
	for part := range strings.SplitSeq(s, ",") {
		part = strings.ToLower(strings.TrimSpace(part))
		if part == "" {
			continue
		}
		if !registryHost.MatchString(part) {
			return nil, fmt.Errorf("want hosts such as registry.example:5000, got %q", part)
		}
		list = append(list, part)
	}
	return list, nil
}

// parseMirrors parses a list such as "docker.io=mirror.example/hub,docker.io=second.example". Mirrors of the same registry
// keep their order.
func parseMirrors(s string) (map[string][]string, error) {
	mirrors := map[string][]string{}
	for part := range strings.SplitSeq(s, ",") {
		part = strings.ToLower(strings.TrimSpace(part))
		if part == "" {
			continue
		}
		of, mirror, _ := strings.Cut(part, "=")
		host, prefix, prefixed := strings.Cut(mirror, "/")
		if !registryHost.MatchString(of) || !registryHost.MatchString(host) || prefixed && !registryPrefix.MatchString(prefix) {
			return nil, fmt.Errorf("want REGISTRY=MIRROR such as docker.io=mirror.example:5000/hub, got %q", part)
		}
		mirrors[of] = append(mirrors[of], mirror)
	}
	return mirrors, nil
}

func formatMirrors(mirrors map[string][]string) string {
	var parts []string
	for _, of := range slices.Sorted(maps.Keys(mirrors)) {
		for _, mirror := range mirrors[of] {
			parts = append(parts, of+"="+mirror)
		}
	}
	return strings.Join(parts, ",")
}
