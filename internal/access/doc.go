// Package access keeps one record of each request that an ingress has answered: what Azure's table ContainerAppHTTPLogs
// says of it.
//
//	goroutines of requests ─► shards: a block each, filled under its lock ─► full, or 250 ms old ─► one writer ─► segment
//	                                                                          queue of blocks, bounded
//
// Each ingress writes segments of its own into a folder that all share, and control reads them there, so that neither
// needs the other. A request never waits for the disk: what the queue has no room for is dropped and counted. A block
// stands for itself: strings that come again are written once in it. The format is docs/formats/requests.md; what is in
// a block is the business of block.go alone.
package access
