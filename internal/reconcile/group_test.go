package reconcile_test

import (
	"errors"
	"testing"
	"time"

	"penstock/internal/resource"
	"penstock/internal/runtimes/fake"
	"penstock/internal/store"
)

// A deleted group goes with all that is in it, apps and jobs before their environment, wherever the server is killed.
func TestADeletedGroupGoesAcrossRestarts(t *testing.T) {
	for name, pause := range map[string]time.Duration{"before it began": -1, "at once": 0, "a moment later": 5 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.put(func(*resource.App) {})
			w.writeJob(func(j *resource.Job) { j.Template.Containers[0].Image = fake.Echo })
			w.startJob("first")
			w.until("the execution runs", func() bool { return len(w.running("first")) == 1 })
			group := resource.GroupID("s", "g")
			if pause < 0 {
				w.stop()
			}
			err := w.store.DeleteGroup(t.Context(), group, func(g *resource.Group, exists bool) error {
				g.Deleted = time.Now()
				return nil
			}, func(resource.Group) store.Operation { return store.Operation{ID: "1", Resource: group} })
			if err != nil {
				t.Fatal(err)
			}
			if pause >= 0 {
				for _, id := range []resource.ID{group, environment, chat} {
					w.reconciler.Touch(id)
				}
				time.Sleep(pause) // any moment will do
				w.stop()
			}
			w.start()
			w.until("the group is gone", func() bool {
				_, err := w.store.Groups().Get(t.Context(), group)
				return errors.Is(err, resource.ErrNotFound)
			})
			for what, err := range map[string]error{
				"environment": errOf(w.store.Environments().Get(t.Context(), environment)),
				"app":         errOf(w.store.Apps().Get(t.Context(), chat)),
			} {
				if !errors.Is(err, resource.ErrNotFound) {
					t.Errorf("the %s is there after its group: %v", what, err)
				}
			}
			if jobs, err := w.store.Jobs().List(t.Context(), store.Scope{}); err != nil || len(jobs) > 0 {
				t.Errorf("jobs after their group: %v %v", jobs, err)
			}
			if left, err := w.driver.List(t.Context()); err != nil || len(left) > 0 {
				t.Errorf("sandboxes after their group: %v %v", left, err)
			}
		})
	}
}

func errOf[T any](_ T, err error) error { return err }
