package load

// EventsIn reads a stream in pieces and gives the beginning of each event's data.
func EventsIn(pieces ...[]byte) []string {
	var e events
	var found []string
	for _, p := range pieces {
		e.feed(p, func(data []byte) { found = append(found, string(data)) })
	}
	return found
}
