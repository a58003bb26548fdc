package main

import (
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// storagesSetting assigns folders of this machine to storages of environments. API clients cannot choose a folder.
func storagesSetting() setting {
	return setting{"storages", "folders for storages, as ENVIRONMENT/STORAGE=FOLDER,... (default: a folder below the data folder)",
		func(c *Config) string {
			var list []string
			for _, name := range slices.Sorted(maps.Keys(c.Storages)) {
				list = append(list, name+"="+c.Storages[name])
			}
			return strings.Join(list, ",")
		},
		func(c *Config, s string) (err error) {
			c.Storages, err = parseStorages(s)
			return err
		}}
}

var storageName = regexp.MustCompile(`^[a-z0-9-]+/[a-z0-9-]+$`)

// parseStorages reads "default/models=/srv/models,default/cache=/srv/cache".
func parseStorages(s string) (map[string]string, error) {
	folders := map[string]string{}
	if strings.TrimSpace(s) == "" {
		return folders, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		name, folder, ok := strings.Cut(strings.TrimSpace(part), "=")
		name = strings.ToLower(name)
		if !ok || !storageName.MatchString(name) || !filepath.IsAbs(folder) {
			return nil, fmt.Errorf("want ENVIRONMENT/STORAGE=FOLDER with an absolute path, as in default/models=/srv/models, got %q", part)
		}
		if folders[name] != "" {
			return nil, fmt.Errorf("%s is set twice", name)
		}
		folders[name] = filepath.Clean(folder)
	}
	return folders, nil
}

// wrongStorage returns why a folder cannot be a storage, or "" if it can.
func wrongStorage(c *Config, folder string) string {
	for _, own := range []string{c.Data, c.Run, c.Engines} {
		if within(own, folder) || within(folder, own) {
			return fmt.Sprintf("want a folder outside the server's own %s, got %s", own, folder)
		}
	}
	return ""
}

// within reports whether folder is other, or is inside it.
func within(folder, other string) bool {
	return folder == other || other == "/" || strings.HasPrefix(folder, other+"/")
}
