// Package network creates the networks of replicas. It makes one bridge per environment, and one network namespace and
// veth pair per replica. One nftables rule set, whose size does not depend on their number, isolates environments,
// replicas and the host from each other.
//
//	host: ingress, resolver (Config.Services)  internet
//	        │ gateway .1, DNAT to Config.Host     │ masquerade
//	  ┌─────┴───── bridge of environment A ───────┴──┐   bridge of environment B …
//	  veth (isolated)       veth (isolated)
//	  netns of replica 1    netns of replica 2         isolated from each other
//
// The host's proxy connects to a replica's address, so no ports are mapped. Networks survive the process that created
// them; Open finds them again. Only Destroy removes them all.
package network
