// Package bench compares Penstock's engine with bare runc on the machine that it runs on.
package bench
