// Package proxy compares the cost of the ingress with that of other proxies. Each runs in its own process in front of
// the same replica.
//
//	load (this process) ──> penstock role ingress ──┐
//	                   ├──> nginx                 ──┼──> replica: 1 KiB, event streams, large bodies
//	                   ├──> Go's ReverseProxy     ──┤
//	                   ├──> Caddy                 ──┘
//	                   └──> directly
//
// Rounds are interleaved, so that other load on the machine affects all proxies alike, and results are medians. The
// most reliable figure is the CPU time that the kernel has charged to a proxy's processes. Rates and latencies also
// depend on how much of the machine the load generator gets.
package proxy
