// Package cli is the command line: a client of the server that speaks HTTP to it like any other.
package cli
