// Package bench measures Penstock beside the plain thing that does the same, on the machine that it runs on.
package bench
