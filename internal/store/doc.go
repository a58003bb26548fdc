// Package store keeps environments, apps, revisions, jobs and executions, and the operations that clients poll, in one
// SQLite file that survives a crash at any moment.
//
//	resources   kind ─ key ─ document, status  one row a resource: what users wrote, and what the platform did, as JSON
//	operations  id ─ resource, generation      what a client polls after a write
//
// There is one writer; readers see the last committed state without waiting for it. Documents stay decoded in memory, filled
// by the first reader: no other process writes the file. What is read points at what all readers share.
// A write that returned is on the disk.
package store
