// Package logs keeps what containers print and what the platform did, as long as the disk limits allow.
//
//	dir/chat-5f0c…/20261130T214216.271419-4711.seg     one folder per app with its segments; only the newest is written
//
// Lines are appended as they arrive. Readers read the files and are woken by each append, so a slow reader delays
// nobody. When an app or the whole log exceeds its limit, the oldest segment is removed. Package segment keeps the
// segments; format.go defines what is in a payload.
package logs
