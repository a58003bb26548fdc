// Package arm is the front door for those who manage apps: Azure Resource Manager's HTTP API, for the clients that speak
// it (Azure's SDKs, az, Terraform) and for Penstock's own command line.
//
//	request ── authenticate ── route ── handler ── store ── reconcile
//	                             │         │
//	                             │         └─ operation: polled until reconcile has observed the write
//	                             └─ any api-version from 2015-08-01 on, paths in any case of letters
//
// How resources are written is the business of arm/app; what becomes of them is reconcile's.
//
// # A type of resource
//
// What users write is described once, as a kind: its address, its table, how a body is read, what a write changes and
// how it is answered. From that follow list, GET, PUT, PATCH and DELETE, the checks that hold for all (group name,
// location, being deleted, spelling of the first write), operations with both polling headers where reconcile carries the
// write out, its place in a group's contents and in the list of the provider's types. A new type is
//
//  1. its noun in resource, with resource.Meta embedded, its type there as TypeX, and a table in store;
//  2. its JSON in arm/app: a struct with app.Tracked embedded (if it has a place and tags), a reader and a writer;
//  3. a function xKind() here that returns its kind, and its line in kinds;
//  4. routes for actions of its own (POST .../start), in routes.
package arm
