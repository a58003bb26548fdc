package jobplan

import (
	"cmp"
	"time"
)

// Backoff is the pause between the tries of an execution that fails. It doubles from First to Max. The zero value has the
// pauses of Kubernetes for jobs: 10, 20, 40 ... 360 s
// (kubernetes.io/docs/concepts/workloads/controllers/job, "Pod backoff failure policy").
type Backoff struct{ First, Max time.Duration }

const (
	kubernetesFirst = 10 * time.Second
	kubernetesMax   = 6 * time.Minute
)

// after returns the pause after a number of failures.
func (b Backoff) after(failures int) time.Duration {
	d, most := cmp.Or(b.First, kubernetesFirst), cmp.Or(b.Max, kubernetesMax)
	for range failures - 1 {
		if d *= 2; d >= most {
			break
		}
	}
	return min(d, most)
}
