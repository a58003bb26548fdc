package scaling

import (
	"slices"
	"testing"
	"time"

	"penstock/internal/admin/wire"
	"penstock/internal/load"
)

func TestNeeded(t *testing.T) {
	for _, c := range []struct {
		perSecond        float64
		target, want, at int
	}{{4.5, 5, 1, 2}, {9, 5, 2, 3}, {22.5, 5, 5, 6}, {90, 5, 18, 21}, {1000, 10, 100, 120}, {0.1, 10, 1, 2}, {0.3, 3, 1, 2}} {
		if got := needed(c.perSecond, time.Second, c.target); got != c.want || goal(got) != c.at {
			t.Errorf("%g a second at a target of %d: %d needed, at most %d; want %d and %d", c.perSecond, c.target, got, goal(got), c.want, c.at)
		}
	}
}

func TestFilled(t *testing.T) {
	at := time.Unix(1000, 0)
	request := func(replica string, held time.Duration) Request {
		return Request{Start: at, Held: held, Replica: replica}
	}
	got := filled(
		[]Event{{At: at.Add(time.Second), Replica: "a"}, {At: at.Add(2 * time.Second), Replica: "b"}, {At: at, Replica: "idle"}},
		[]Request{
			request("a", 1005*time.Millisecond), request("b", 2007*time.Millisecond), request("a", 1003*time.Millisecond), request("b", 2001*time.Millisecond),
			request("a", 9*time.Second), request("", 0), request("idle", time.Second), // the third of a came when another had ended; one place of idle stayed free
		}, 2)
	if want := []time.Duration{5 * time.Millisecond, 7 * time.Millisecond}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// A refusal is counted by its name, and what is neither an answer nor a refusal is lost.
func TestOutcome(t *testing.T) {
	sum := &load.Summary{Succeeded: 2, Failed: 4}
	got := outcomeOf(sum, []Request{{Status: 503, Flags: "UO", Details: "overflow"}, {Status: 503, Flags: "UO", Details: "overflow"}, {Status: 503, Replica: "a"}, {Status: 200, Replica: "a"}})
	if got.Answered != 2 || got.Lost != 2 || got.Refused["UO overflow"] != 2 {
		t.Errorf("got %+v, want 2 answered, 2 refused, 2 lost", got)
	}
}

func TestLive(t *testing.T) {
	at := time.Unix(1000, 0)
	change := func(after time.Duration, from, to int) wire.ScaleChange {
		return wire.ScaleChange{At: at.Add(after), From: from, To: to}
	}
	row := live(&load.Summary{Started: at}, []wire.ScaleChange{
		change(-time.Hour, 1, 0), change(0, 0, 1), change(2*time.Second, 1, 3), change(3*time.Second, 3, 0), change(10*time.Second, 0, 1), change(11*time.Second, 1, 0),
	}, nil)
	if row.ReplicaSeconds != 2+3+1 || row.ColdStarts != 2 || row.Starts != 4 || row.Most != 3 {
		t.Errorf("got %+v, want 6 replica-seconds, 2 cold starts, 4 starts, 3 replicas", row)
	}
}
