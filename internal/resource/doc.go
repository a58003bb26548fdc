// Package resource holds the nouns of Penstock: environments, apps, revisions and replicas, with the rules that make
// one valid. It does no I/O and knows no api-version: how a noun is written on the wire is the business of arm.
//
//	Environment ──< App ──< Revision ──< Replica
//	  domain        configuration  template      address, state
//	                (no revision)  (makes one)
package resource
