// Package server builds the two roles of `penstock server` from their parts. It is the only package that knows all of
// them.
//
//	supervisor ─┬─ ingress   listeners http, https      routes by link.Table, queues requests that must wait
//	            │            names                      answers DNS queries of replicas from the same table
//	            └─ control   listeners arm, link        arm ─► store ─► reconcile ─► runtimes ─► containers
//	                                                    registry ─► images       engine ─► logs
package server
