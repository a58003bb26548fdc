// Package rollout sends requests to an app while its replicas and the server's roles change, and says which requests failed
// and why.
//
//	Press: clients of several kinds ──> server: roles, replicas
//	                                      ▲ Processes: who runs, to kill it
//	Run: switches, scale-ins, kills, restarts ──> failures by cause: a kill explains those in hand, nothing explains others
package rollout
