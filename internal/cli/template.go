package cli

// templateDoc is the part of an app that a change of its template reads. Containers are kept as the server sent them, so
// that a change of one field loses no other.
type templateDoc struct {
	Properties struct {
		Template struct {
			Containers []map[string]any `json:"containers"`
		} `json:"template"`
	} `json:"properties"`
}
