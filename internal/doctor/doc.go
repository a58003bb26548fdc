// Package doctor tells what this machine can do for Penstock and what it cannot, by trying it.
package doctor
