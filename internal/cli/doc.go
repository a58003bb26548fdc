// Package cli implements the command line, which is an HTTP client of the server.
package cli
