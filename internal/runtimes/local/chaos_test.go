package local_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"penstock/internal/resource"
	"penstock/internal/runtimes"
	"penstock/internal/runtimes/local"
)

// Whatever the order of events, the engine ends in the state that was requested last, promises no more memory than
// there is, and leaves nothing of what was removed.
func TestAnyOrderOfThings(t *testing.T) {
	const revisions, room = 3, 8
	for seed := range uint64(8) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			dice := rand.New(rand.NewPCG(seed, 0))
			limit := func(c *local.Config) { c.Capacity = local.Capacity{Memory: room << 29} }
			b := setUp(t, limit)
			var want [revisions]runtimes.Workload
			for i := range want {
				want[i] = web(0)
				want[i].Revision.ID = want[i].Revision.App().Child("revisions", fmt.Sprint("web--", i))
				want[i].Revision.Template.Grace = 1 // almost no grace: some end by SIGTERM and some are killed
			}
			for range 150 {
				i := dice.IntN(revisions)
				switch dice.IntN(10) {
				case 0, 1, 2, 3:
					want[i].Replicas = dice.IntN(4)
					want[i].Retire = nil
					if list := b.list(t); len(list) > 0 {
						want[i].Retire = []string{list[dice.IntN(len(list))].Name}
					}
					b.apply(t, want[i])
				case 4:
					want[i].Replicas = 0
					b.remove(t, want[i])
				case 5, 6, 7:
					if list := b.list(t); len(list) > 0 {
						b.driver.Crash(list[dice.IntN(len(list))].Name, 1)
					}
				case 8:
					b.restart(t, limit)
				case 9:
					b.until(t, "a ready replica, or none wanted", func(list []resource.Replica) bool {
						return len(list) == 0 || slices.ContainsFunc(list, func(r resource.Replica) bool { return r.State == resource.ReplicaReady }) ||
							want[0].Replicas+want[1].Replicas+want[2].Replicas == 0
					})
				}
			}
			if dice.IntN(2) == 0 {
				b.restart(t, limit)
			}
			total := 0
			for i := range want {
				want[i].Replicas = min(want[i].Replicas, room-total)
				total += want[i].Replicas
				b.apply(t, want[i])
			}
			// The last crash may not have been noticed yet, so a replica may be shown as ready a little longer.
			b.until(t, "ready replicas with one process each", func(list []resource.Replica) bool {
				alive := 0
				for _, r := range list {
					if u, err := b.Usage(t.Context(), r.Name); err == nil && u.Processes == 1 && r.State == resource.ReplicaReady {
						alive++
					}
				}
				return len(list) == total && alive == total
			})
			if lines := left(b.driver); len(lines) != total {
				t.Errorf("want %d sandboxes, got %q", total, lines)
			}
			for _, w := range want {
				b.remove(t, w)
			}
			b.gone(t)
		})
	}
}
