// Package restarts tests that restarts of every kind lose neither requests nor apps: roles, revisions, the machine.
package restarts
