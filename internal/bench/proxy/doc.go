// Package proxy measures what the ingress costs beside other proxies, each a process of its own before the same replica.
//
//	load (this process) ──> penstock role ingress ──┐
//	                   ├──> nginx                 ──┼──> replica: 1 KiB, event streams, large bodies
//	                   ├──> Go's ReverseProxy     ──┤
//	                   ├──> Caddy                 ──┘
//	                   └──> directly
//
// Rounds are interleaved, so that what else the machine does falls upon all alike, and medians are told. What the kernel
// has charged to a proxy's processes is the figure to trust; rates and latencies also depend on the load's own share of
// the machine.
package proxy
