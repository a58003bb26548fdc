// Package isolation tests what a container cannot reach or leave behind: the machine, other apps, secrets.
package isolation
