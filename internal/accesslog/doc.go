// Package accesslog keeps one record for each request that an ingress has answered, with the data of Azure's table
// ContainerAppHTTPLogs.
//
//	request goroutines ─► shards: one block each, filled under a lock ─► full, or 250 ms old ─► one writer ─► segment
//	                                                                    bounded queue of blocks
//
// Each ingress writes its own segments into a shared folder, and control reads them there, so neither depends on the
// other. A request never waits for the disk: if the queue is full, records are dropped and counted. A block can be read
// without the others, and has each repeated string once. The format is docs/formats/requests.md. Package segment keeps
// the blocks; block.go defines what is in one.
package accesslog
