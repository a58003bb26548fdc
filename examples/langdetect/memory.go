package main

import (
	"os"
	"strconv"
	"strings"
)

// residentBytes returns how much memory the process holds, or 0 if it is unknown (no /proc).
func residentBytes() int64 {
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(statm)) // size resident shared ..., in pages: proc(5)
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
