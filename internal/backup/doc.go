// Package backup writes all that a server keeps into one file, and makes a data folder from it again.
//
// The file is a tar archive, so that ordinary tools can look into it:
//
//	backup.json      Info: format, Penstock's version, when, of which server
//	data/...         the data folder, without what a server makes by itself or nobody needs
//	images/...       an OCI image layout, when images were asked for
//	sums.json        SHA-256 of every file before it; a backup without it was cut short
package backup

import (
	"errors"
	"fmt"
	"time"
)

// Info is what a backup says of itself.
type Info struct {
	Format   int       `json:"format"`
	Version  string    `json:"version"` // of the Penstock that wrote it
	Created  time.Time `json:"created"`
	Instance string    `json:"instance"`
	Images   bool      `json:"images"`
}

// Format is the version of the format that is written, and the newest that is read.
const Format = 1

// ErrCut is wrapped when a backup lacks its end.
var ErrCut = errors.New("the backup was cut short")

const (
	infoName  = "backup.json"
	sumsName  = "sums.json"
	dataDir   = "data"
	imagesDir = "images"
	database  = "penstock.db"
	// ImportDir is the folder in a data folder that holds the images of a backup until the next start takes them.
	ImportDir = "import"
)

func (i Info) check() error {
	if i.Format < 1 || i.Format > Format {
		return fmt.Errorf("want a backup of format 1 to %d, got %d, written by Penstock %s; use that version or a newer one", Format, i.Format, i.Version)
	}
	return nil
}
