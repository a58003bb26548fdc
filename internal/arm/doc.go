// Package arm is the front door for those who manage apps: Azure Resource Manager's HTTP API, for the clients that speak
// it (Azure's SDKs, az, Terraform) and for Penstock's own command line.
//
//	request ── authenticate ── route ── handler ── store ── reconcile
//	                             │         │
//	                             │         └─ operation: polled until reconcile has observed the write
//	                             └─ any api-version from 2015-08-01 on, paths in any case of letters
//
// How resources are written is the business of arm/app; what becomes of them is reconcile's.
package arm
