package local_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"penstock/internal/resource"
	"penstock/internal/runtimes/fake"
)

func TestRemoveAll(t *testing.T) {
	for name, stray := range map[string]bool{"of revisions and executions": false, "but for a stray": true} {
		t.Run(name, func(t *testing.T) {
			b := setUp(t, nil)
			if stray {
				b.stop()
				makeStray(t, b.driver.Driver, []byte("no record"))
				b.restart(t, nil)
			}
			b.apply(t, web(2))
			other := web(1)
			other.Revision.ID = resource.AppID("s", "g", "other").Child("revisions", "other--1")
			b.apply(t, other)
			b.execute(t, batch(initOf("work", fake.Done)))
			b.until(t, "three ready and one that has ended", func(list []resource.Replica) bool {
				n := count(list)
				return n[resource.ReplicaReady] == 3 && n[resource.ReplicaSucceeded] == 1
			})
			strays, err := b.RemoveAll(t.Context())
			if err != nil || strays != stray {
				t.Errorf("got strays %t, %v; want %t", strays, err, stray)
			}
			list := b.list(t)
			if stray && (len(list) != 1 || list[0].Name != "stray") {
				t.Errorf("want the stray alone, got %+v", list)
			}
			if !stray {
				b.gone(t)
			}
		})
	}
}

func TestRemoveAllOfNothing(t *testing.T) {
	if strays, err := setUp(t, nil).RemoveAll(t.Context()); strays || err != nil {
		t.Errorf("got strays %t, %v", strays, err)
	}
}

// A replica that uses its whole grace period does not block a caller whose ctx has ended.
func TestRemoveAllEndsWithItsContext(t *testing.T) {
	b := setUp(t, nil)
	w := web(1)
	w.Revision.Template.Containers[0].Image = fake.Deaf
	w.Revision.Template.Grace = time.Minute
	b.apply(t, w)
	b.ready(t, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := b.RemoveAll(ctx)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "1 are left") {
		t.Errorf("got %v, want the end of the context, and how many are left", err)
	}
}
