// Package operate tests what an operator does with a server: jobs, backups, top, standbys, the Debian package.
package operate
