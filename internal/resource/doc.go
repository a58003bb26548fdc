// Package resource has the types of Penstock's resources, such as environments, apps, jobs, revisions and replicas, and
// the rules by which they are validated. It does no I/O and knows no api-version: package arm has the JSON of each type.
//
//	Environment ──< App ──< Revision ──< Replica
//	  domain        configuration  template      address, state
//	                (no revision)  (makes one)
package resource
