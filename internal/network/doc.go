// Package network gives replicas their network: one bridge an environment, one network namespace and veth pair a
// replica, and one constant nftables rule set that keeps environments, replicas and the host apart.
//
//	host: ingress, resolver (Config.Services)  internet
//	        │ gateway .1, led to Config.Host      │ masquerade
//	  ┌─────┴───── bridge of environment A ───────┴──┐   bridge of environment B …
//	  veth (isolated)       veth (isolated)
//	  netns of replica 1    netns of replica 2         no way from one to another
//
// The host's proxy dials a replica's address, so no port is mapped. What has been made outlives the process; Open
// finds it again. Only Destroy removes it.
package network
