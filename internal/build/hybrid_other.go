//go:build !linux

package build

func hybrid() bool { return false }
