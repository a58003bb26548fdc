// Package scaling measures how apps scale on a server: how soon enough replicas are ordered, how many there are beside how many
// are needed, and what that means for the requests.
//
//	load (this process) ──> ingress ──> replicas of the fake runtime, whose start and service times are given
//	        │
//	        └── events, access records and GET /penstock/v1/scale say when replicas were ordered and ready, and what waited
//
// Times come from the clock of this machine, which the server runs on too.
package scaling
