// Package decisions keeps a record of scaling decisions: each change of a revision's replica count, of the rule that
// decided, and of what limits the count. The API and `penstock app explain` show them, also after a restart.
//
//	autoscale ──► Log.Add ──► queue ──► segments of <data>/logs/decisions ──► Log.Read
//
// Add never waits for the disk. All revisions of a server share the segments, which are limited in size and age. The
// format is docs/formats/decisions.md.
package decisions
