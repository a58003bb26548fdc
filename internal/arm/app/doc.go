// Package app is how environments, apps, revisions and replicas are written on the wire of Azure Resource Manager, in
// the Microsoft.App namespace: JSON in and out, and the YAML that az containerapp reads.
//
//	body ── parse ── document ── strict decode ── ContainerApp ── Resource ── resource.App
//	                               │                                             │
//	                               └─ unknown, refused and stored fields         └─ NewContainerApp ── answer
//
// What Azure knows and Penstock has not built is listed once, in fields.go: either refused by name, or stored, echoed
// and told of in a warning.
package app
