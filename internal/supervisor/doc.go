// Package supervisor keeps the server's roles alive: it holds the data folder and every listener, and runs each role as
// a child process of the same binary that inherits the listeners it serves.
//
//	supervisor ── lock on the data folder, listeners, no other state
//	   ├── ingress   http, https, …   a new one is ready before the old one drains
//	   └── control   arm, link        stopped, then started again
//
// Those that replicas reach are on an address of the instance's own (Private), which the machine may not have yet.
//
// TCP ports of apps come and go while the server runs. A role asks for all that it wants by a socket (Ports), and gets
// copies of sockets that stay open here, so that these outlive it too.
//
// Because the listeners stay open here, a connection that arrives while a role is away waits in the backlog instead of
// being refused. What a child has to say goes over one pipe, a word a line: "ready" once it serves, "stop" when the
// whole server is to end.
package supervisor
