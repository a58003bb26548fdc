// Package images tests how images are built, pulled, kept and known, with the example models in them.
package images
