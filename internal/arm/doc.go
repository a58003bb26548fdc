// Package arm serves Azure Resource Manager's HTTP API, through which users manage apps. Its clients are Azure's SDKs, az,
// Terraform, and Penstock's own command line.
//
//	request ── authenticate ── route ── handler ── store ── reconcile
//	                             │         │
//	                             │         └─ operation: polled until reconcile has observed the write
//	                             └─ any api-version from 2015-08-01 on, paths in any case
//
// Package arm/app has the JSON of the resources. Package reconcile carries out what is written.
//
// # A type of resource
//
// A type that users write is described once, as a kind: its resource type, its table, how a body is read, what a write
// changes, and its JSON. From that follow list, GET, PUT, PATCH and DELETE; the checks that are the same for all (group
// name, location, deletion in progress, spelling of the first write); operations with both polling headers where reconcile
// carries out the write; its place in the contents of groups, in the types of its provider, and in the list of providers
// if its namespace is new. A new type needs
//
//  1. its Go type in resource, with resource.Meta embedded, its resource type there as TypeX, and a table in store;
//  2. its JSON in arm/app: a struct with app.Tracked embedded (if it has a location and tags), a reader and a writer;
//  3. a function xKind() here that returns its kind, its line in kinds and, for a new namespace, its line in apiVersions;
//  4. routes for its own actions (POST .../start), in newRoutes.
package arm
