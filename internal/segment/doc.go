// Package segment keeps records on disk in append-only files of limited size, and removes the oldest files first.
//
//	folder/20261130T214216.271419-4711.seg    when it was begun (UTC), and by which process
//
//	┌────────┬───────┬───────┬─────────
//	│ header │ block │ block │ ...        each block: times, number of records, checksum, payload
//	└────────┴───────┴───────┴─────────
//
// A [Folder] appends blocks. A [Reader] reads them, in this process or in another one. What a payload contains is up to
// the package that writes it: the header of a segment has the name and version of its schema, and a reader skips
// segments with an unknown schema. A reader also skips damaged blocks and continues with the next good one. A block
// that is not complete yet is read when it is. The format is docs/formats/segments.md.
//
// Appends are not synced. A crash of the process loses nothing that Append has returned for; a power failure may lose
// the last seconds.
package segment
