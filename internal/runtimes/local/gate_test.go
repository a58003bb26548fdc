package local_test

import (
	"slices"
	"strings"
	"testing"

	"penstock/internal/resource"
	"penstock/internal/runtimes/local"
)

// Only a few containers are created at a time, and a revision that has none does not wait for another to grow.
func TestFewStartAtATimeAndTheSmallestRevisionFirst(t *testing.T) {
	making, goOn := make(chan string), make(chan struct{})
	b := setUp(t, func(c *local.Config) { c.Starts = 2 })
	b.driver.before(func(c local.Container) {
		making <- c.Replica
		<-goOn
	})
	big, small := web(6), web(1)
	small.Revision.ID = small.Revision.App().Child("revisions", "web--small")
	b.apply(t, big)
	order := []string{<-making, <-making}
	b.apply(t, small)
	b.until(t, "the small one waits for its turn", func([]resource.Replica) bool { return b.events.count("PulledImage") == 7 })
	for len(order) < 7 {
		select {
		case extra := <-making:
			t.Fatalf("%s is made beside two others", extra)
		default:
		}
		goOn <- struct{}{}
		order = append(order, <-making)
	}
	goOn <- struct{}{}
	goOn <- struct{}{}
	b.ready(t, 7)
	if at := slices.IndexFunc(order, func(r string) bool { return strings.HasPrefix(r, "web--small-") }); at != 2 && at != 3 {
		// It is number 3 if it reached the gate a moment after it reported that it has its image.
		t.Errorf("the revision without a replica is number %d of %v, want number 2 or 3", at, order)
	}
}

// A replica that is told to end while it waits leaves the queue, and those behind it move up.
func TestWhoEndsLeavesTheLine(t *testing.T) {
	making, goOn := make(chan string), make(chan struct{})
	b := setUp(t, func(c *local.Config) { c.Starts = 1 })
	b.driver.before(func(c local.Container) {
		making <- c.Replica
		<-goOn
	})
	first, second := web(1), web(2)
	second.Revision.ID = second.Revision.App().Child("revisions", "web--second")
	b.apply(t, first)
	<-making
	b.apply(t, second)
	b.until(t, "both wait", func([]resource.Replica) bool { return b.events.count("PulledImage") == 3 })
	b.remove(t, second)
	b.until(t, "they have left", func(list []resource.Replica) bool { return len(list) == 1 })
	second.Replicas = 1
	b.apply(t, second)
	goOn <- struct{}{}
	if next := <-making; !strings.HasPrefix(next, "web--second-") {
		t.Errorf("%s is made, want one of the second revision", next)
	}
	goOn <- struct{}{}
	b.ready(t, 2)
}
