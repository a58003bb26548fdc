// Package doctor checks whether a machine has what Penstock needs, by trying each thing.
package doctor
