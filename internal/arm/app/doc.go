// Package app has the JSON of the resources of the namespace Microsoft.App in Azure Resource Manager's API, such as
// environments, apps, jobs and revisions. It also reads the YAML of az containerapp.
//
//	body ── parse ── document ── strict decode ── ContainerApp ── Resource ── resource.App
//	                               │                                             │
//	                               └─ unknown, refused and stored fields         └─ NewContainerApp ── answer
//
// The fields that Azure has and Penstock has not built are listed once, in fields.go. Each is either refused with an error
// that names it, or stored and returned with a warning event.
package app
