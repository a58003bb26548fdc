package ingress

// Visits reads the entries of a request to an app as the ingress does.
func (in *Ingress) Visits(app string, given []string) (field string, times, visited int) {
	return in.hops.visit(in.hops.id(app), given)
}
