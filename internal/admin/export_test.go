package admin

import "context"

// Endpoints returns the method and path of each endpoint.
func Endpoints() []string {
	var all []string
	for _, e := range new(api).endpoints() {
		all = append(all, e.method+" "+e.path)
	}
	return all
}

// NewCPUSampler returns the function that reports how many vCPUs each replica uses.
func NewCPUSampler(runtime Runtime) func(context.Context) (map[string]float64, error) {
	s := newCPUSampler(runtime)
	return func(ctx context.Context) (map[string]float64, error) {
		_, cpu, err := s.sample(ctx)
		return cpu, err
	}
}
