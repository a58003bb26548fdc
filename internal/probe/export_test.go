package probe

// StatusError is the failure of an HTTP probe with that status.
func StatusError(status int) error { return statusError(status) }
