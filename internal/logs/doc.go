// Package logs keeps what containers print and what the platform did, for as long as there is room on the disk for it.
//
//	dir/chat-5f0c…/00000007.log     one folder an app, in it segments: files that only grow, the newest is written
//
// Lines are appended as they arrive; readers read the files and are woken by each append, so a slow reader costs nobody
// anything. When an app or the whole passes its limit, the oldest segment goes. Appends are not synced: after a loss of
// power the last seconds may be missing, after a crash of Penstock nothing is. What is in a segment is the business of
// format.go alone.
package logs
