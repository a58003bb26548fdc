// Package backup writes a server's data to one file, and restores a data folder from it.
//
// The file is a tar archive, so that ordinary tools can look into it:
//
//	backup.json      Info: format, Penstock's version, when, of which server
//	data/...         the data folder, without files that a server recreates or does not need
//	images/...       an OCI image layout, if images were requested
//	sums.json        SHA-256 of every file before it; a backup without it was cut short
package backup

import (
	"errors"
	"fmt"
	"time"
)

// Info describes a backup.
type Info struct {
	Format   int       `json:"format"`
	Version  string    `json:"version"` // of the Penstock that wrote it
	Created  time.Time `json:"created"`
	Instance string    `json:"instance"`
	Images   bool      `json:"images"`
}

// Format is the version of the format that Write writes, and the newest that Restore reads.
const Format = 1

// ErrCut is wrapped by errors about a backup whose end is missing.
var ErrCut = errors.New("the backup was cut short")

const (
	infoName  = "backup.json"
	sumsName  = "sums.json"
	dataDir   = "data"
	imagesDir = "images"
	database  = "penstock.db"
	// ImportDir is the folder in a data folder that holds a backup's images until the next start imports them.
	ImportDir = "import"
	// SettingsFile is the file in a data folder with the settings that a server there has unless others are given. A new server
	// does not get those of the original, whose ports may be in use.
	SettingsFile = "settings.yaml"
)

func (i Info) check() error {
	if i.Format < 1 || i.Format > Format {
		return fmt.Errorf("want a backup of format 1 to %d, got %d, written by Penstock %s; use that version or a newer one", Format, i.Format, i.Version)
	}
	return nil
}
