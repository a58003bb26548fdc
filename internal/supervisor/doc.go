// Package supervisor keeps the server's roles running. It locks the data folder, holds every listener, and runs each role
// as a child process of the same binary, which inherits the listeners that it serves.
//
//	supervisor ── lock on the data folder, listeners, no other state
//	   ├── ingress   http, https, …   a new one is ready before the old one drains
//	   └── control   arm, link        stopped, then started again
//
// Listeners for replicas are on the instance's private address (Private), which the machine may not have yet.
//
// TCP ports of apps change while the server runs. A role requests all that it wants over a socket (Ports) and gets copies of
// listeners. The originals stay open here, so they outlive the role.
//
// Because the listeners stay open here, a connection that arrives while a role is down waits in the backlog instead of
// being refused. A child reports over one pipe, one word per line: "ready" once it serves, and "stop" when the whole server
// must end.
package supervisor
