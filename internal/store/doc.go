// Package store keeps what users asked for: environments, apps, revisions and the operations that carry their changes
// out, in one SQLite file that survives a crash at any moment.
//
//	resources   kind ─ key ─ document      one row a resource; the document is the JSON of its Go type
//	operations  id ─ resource, generation  what a client polls after a write
//
// There is one writer; readers see the last committed state without waiting for it. Documents stay decoded in memory, filled
// by the first reader: no other process writes the file. What is read points at what all readers share.
// A write that returned is on the disk.
package store
