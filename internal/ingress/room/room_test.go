package room_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"penstock/internal/ingress/room"
	"penstock/internal/resource"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time { return epoch.Add(time.Duration(seconds * float64(time.Second))) }

func config(max int) room.Config {
	return room.Config{Settings: resource.Settings{
		Behaviour: resource.Fast, MaxConcurrency: max, QueueLimit: 3, QueueTimeout: 10 * time.Second,
	}}
}

// set makes names the replicas of rm.
func set(rm *room.Room, c room.Config, now time.Time, names ...string) (gone []*room.Replica) {
	return rm.Update(c, names, func(i int) (string, any) { return "key of " + names[i], nil }, now)
}

// claim claims a place for a ticket that has come at now, and names what came of it.
func claim(rm *room.Room, t *room.Ticket, now time.Time) string {
	if t.Arrived.IsZero() {
		t.Arrived = now
	}
	r, err := rm.Claim(t, now)
	if err != nil {
		return err.Error()
	}
	return r.Name
}

// settled names what came of those whose wait has ended, in order.
func settled(rm *room.Room) (got []string) {
	for _, t := range rm.Settled() {
		if r, err := t.Outcome(); err != nil {
			got = append(got, err.Error())
		} else {
			got = append(got, r.Name)
		}
	}
	return got
}

func equal(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func TestPlacesAreHandedOnInOrderOfArrival(t *testing.T) {
	rm := room.New(epoch)
	set(rm, config(1), at(0), "a")
	equal(t, "the first", []string{claim(rm, new(room.Ticket), at(0))}, "a")
	first, second, early := new(room.Ticket), new(room.Ticket), &room.Ticket{Arrived: at(0.5)}
	for _, ticket := range []*room.Ticket{first, second, early} {
		if got := claim(rm, ticket, at(1)); got != room.ErrWaits.Error() {
			t.Fatalf("got %s, want it to wait", got)
		}
	}
	for i, want := range []*room.Ticket{early, first, second} {
		rm.Release(rm.Replicas()[0], at(float64(2+i)))
		if got := rm.Settled(); len(got) != 1 || got[0] != want {
			t.Fatalf("release %d: got %v, want the place to go to the next in order", i, got)
		}
	}
	if rm.Waiting() != 0 || rm.Replicas()[0].InFlight() != 1 {
		t.Errorf("got %d waiting and %d in flight, want 0 and 1", rm.Waiting(), rm.Replicas()[0].InFlight())
	}
}

func TestWhoWaitsIsServedByANewReplica(t *testing.T) {
	rm := room.New(epoch)
	set(rm, config(2), at(0))
	for range 3 {
		claim(rm, new(room.Ticket), at(0))
	}
	set(rm, config(2), at(1), "a")
	equal(t, "with the first replica", settled(rm), "a", "a")
	set(rm, config(2), at(2), "a", "b")
	equal(t, "with the second", settled(rm), "b")
}

func TestDeadlines(t *testing.T) {
	blocked := config(1)
	blocked.Blocked = "needs 4 GiB"
	rm := room.New(epoch)
	set(rm, blocked, at(0))
	if _, ok := rm.NextDeadline(); ok {
		t.Error("an empty line has a deadline")
	}
	claim(rm, new(room.Ticket), at(1))
	claim(rm, new(room.Ticket), at(2))
	if got, ok := rm.NextDeadline(); !ok || got != at(11) {
		t.Errorf("deadline: got %v, %t, want %v", got, ok, at(11))
	}
	rm.Expire(at(10.9))
	equal(t, "before the deadline", settled(rm))
	rm.Expire(at(11))
	equal(t, "at the deadline of the first", settled(rm), "waited 10s: needs 4 GiB")
	set(rm, config(1), at(11))
	rm.Expire(at(12))
	equal(t, "without a reason", settled(rm), "waited 10s: no replica became ready")
	set(rm, config(1), at(12), "a")
	claim(rm, new(room.Ticket), at(12))
	claim(rm, new(room.Ticket), at(12))
	rm.Expire(at(22))
	equal(t, "while a replica is busy", settled(rm), "no place became free within 10s: each of the 1 replicas has its 1 requests")
}

func TestRefusals(t *testing.T) {
	rm := room.New(epoch)
	set(rm, config(1), at(0))
	for range 3 {
		claim(rm, new(room.Ticket), at(0))
	}
	_, err := rm.Claim(new(room.Ticket), at(0))
	if r, ok := errors.AsType[*room.Refusal](err); !ok || r.Reason != room.LineFull || r.Waiting != 3 {
		t.Errorf("full line: got %v, want LineFull with 3", err)
	}
	failed := config(1)
	failed.Failed = "no such image"
	set(rm, failed, at(1))
	const because = "no replica can start: no such image"
	equal(t, "those who waited when the revision failed", settled(rm), because, because, because)
	equal(t, "who comes later", []string{claim(rm, new(room.Ticket), at(1))}, because)
	set(rm, failed, at(2), "a")
	equal(t, "while one replica still runs", []string{claim(rm, new(room.Ticket), at(2))}, "a")
	rm.Close(at(3))
	equal(t, "a closed room", []string{claim(rm, new(room.Ticket), at(3))}, room.ErrMoved.Error())
	if rm.Over() {
		t.Error("the room is over while it serves a request")
	}
	if drained := rm.Release(rm.Leaving()[0], at(4)); !drained || !rm.Over() {
		t.Errorf("after the last request: drained %t, over %t, want both", drained, rm.Over())
	}
}

func TestDismissedAndClosedLookForTheirRoomAgain(t *testing.T) {
	rm := room.New(epoch)
	set(rm, config(1), at(0))
	moved, stays := &room.Ticket{Value: "moved"}, &room.Ticket{Value: "stays"}
	claim(rm, moved, at(0))
	claim(rm, stays, at(0))
	rm.Dismiss(func(t *room.Ticket) bool { return t.Value == "moved" }, at(1))
	if got := rm.Settled(); len(got) != 1 || got[0] != moved {
		t.Errorf("dismissed: got %v", got)
	}
	if rm.Leave(moved, at(1)) {
		t.Error("a ticket left a line in which it was not")
	}
	rm.Close(at(2))
	equal(t, "closed", settled(rm), room.ErrMoved.Error())
	rm.Open()
	equal(t, "open again", []string{claim(rm, stays, at(3))}, room.ErrWaits.Error())
	if !rm.Leave(stays, at(3)) || rm.Waiting() != 0 {
		t.Error("a ticket cannot leave the line")
	}
}

func TestPreferredReplica(t *testing.T) {
	rm := room.New(epoch)
	set(rm, config(2), at(0), "a", "b")
	for i, want := range []string{"b", "b", "a"} { // the last one finds no place there
		equal(t, fmt.Sprint("claim ", i), []string{claim(rm, &room.Ticket{Prefer: "key of b"}, at(0))}, want)
	}
	equal(t, "a replica that left", []string{claim(rm, &room.Ticket{Prefer: "key of c"}, at(0))}, "a")
}

func TestReplicasThatRefuseConnections(t *testing.T) {
	rm := room.New(epoch)
	set(rm, config(0), at(0), "a", "b")
	ticket := new(room.Ticket)
	for _, want := range []string{"a", "b"} {
		equal(t, "try", []string{claim(rm, ticket, at(0))}, want)
		r := rm.Replicas()[slices.IndexFunc(rm.Replicas(), func(r *room.Replica) bool { return r.Name == want })]
		rm.Release(r, at(0))
		rm.Shun(ticket, r, at(0))
	}
	equal(t, "after all", []string{claim(rm, ticket, at(0))}, room.ErrTried.Error())
	var pauses []time.Duration
	now := at(0)
	for {
		d, ok := ticket.Pause(now)
		if !ok {
			break
		}
		pauses = append(pauses, d)
		now = now.Add(d)
	}
	ms := time.Millisecond
	if want := []time.Duration{10 * ms, 20 * ms, 40 * ms, 80 * ms, 100 * ms, 100 * ms, 100 * ms, 100 * ms}; !slices.Equal(pauses, want) {
		t.Errorf("pauses: got %v, want %v", pauses, want)
	}

	set(rm, config(0), at(1), "a", "b", "c")
	rm.Shun(new(room.Ticket), rm.Replicas()[0], at(1))
	for when, want := range map[float64]string{1.5: "b", 2.5: "a"} {
		r, _ := rm.Claim(&room.Ticket{Arrived: at(when)}, at(when))
		if r.Name != want {
			t.Errorf("after %v s: got %s, want %s", when, r.Name, want)
		}
		rm.Release(r, at(when))
	}
}

// A ticket whose connection the only free replica has refused waits for another, and holds up nobody.
func TestWhoHasTriedTheFreeReplicaHoldsUpNobody(t *testing.T) {
	rm := room.New(epoch)
	set(rm, config(1), at(0), "a", "b")
	tried := new(room.Ticket)
	claim(rm, tried, at(0))
	equal(t, "another", []string{claim(rm, new(room.Ticket), at(0))}, "b")
	rm.Release(rm.Replicas()[0], at(1))
	rm.Shun(tried, rm.Replicas()[0], at(1))
	equal(t, "a second try", []string{claim(rm, tried, at(1))}, room.ErrWaits.Error())
	equal(t, "who comes later", []string{claim(rm, new(room.Ticket), at(2))}, "a")
	rm.Release(rm.Replicas()[0], at(3))
	equal(t, "what has refused it is free", settled(rm))
	set(rm, config(1), at(4), "a")
	equal(t, "no other is left", settled(rm), "a")
}

func TestMeasure(t *testing.T) {
	rm := room.New(epoch)
	set(rm, config(2), at(0), "a")
	a := rm.Replicas()[0]
	first, second, third := new(room.Ticket), new(room.Ticket), new(room.Ticket)
	claim(rm, first, at(10))
	claim(rm, second, at(11))
	claim(rm, third, at(12))
	before := rm.Measure(at(13))
	if want := (room.Measure{At: 13 * time.Second, Arrivals: 3, Busy: 5 * time.Second, Waited: time.Second}); before != want || rm.Busy(a) != want.Busy {
		t.Errorf("got %+v and %v, want %+v", before, rm.Busy(a), want)
	}
	// This ended before the measure, and is heard of after it: nothing that was reported is taken back.
	rm.Release(a, at(12.5))
	if got := rm.Measure(at(13)); got != before {
		t.Errorf("got %+v, want %+v again", got, before)
	}
	rm.Release(a, at(14))
	rm.Release(a, at(15))
	if got := rm.Measure(at(20)); got.Busy != before.Busy+3*time.Second || got.Waited != before.Waited || rm.Busy(a) != got.Busy {
		t.Errorf("got %+v and %v, want 8 s busy and 1 s waited", got, rm.Busy(a))
	}
}

// model is what the property test knows of a room without asking it.
type model struct {
	t        *testing.T
	rm       *room.Room
	now      time.Time
	limit    int
	held     map[*room.Ticket]*room.Replica
	line     []*room.Ticket // in order of arrival
	tried    map[*room.Ticket]*room.Replica
	busy     map[string]time.Duration
	waited   time.Duration
	arrivals uint64
}

// pass lets time go by, and adds up the integrals the plain way.
func (m *model) pass(d time.Duration) {
	for _, r := range m.held {
		m.busy[r.Name] += d
	}
	m.waited += time.Duration(len(m.line)) * d
	m.now = m.now.Add(d)
}

// place gives a place to a ticket.
func (m *model) place(t *room.Ticket, r *room.Replica) {
	if m.held[t] != nil {
		m.t.Fatal("a ticket was given two places")
	}
	m.held[t] = r
}

// settle takes those whose wait has ended from the line. Those with a place must be the first in it.
func (m *model) settle() {
	for _, t := range m.rm.Settled() {
		i := slices.Index(m.line, t)
		if i < 0 {
			m.t.Fatal("the wait of a ticket ended that was not in line")
		}
		if r, err := t.Outcome(); err == nil {
			for _, before := range m.line[:i] {
				if m.tried[before] == nil {
					m.t.Fatal("a place was given to one behind another")
				}
			}
			m.place(t, r)
		} else if r, ok := errors.AsType[*room.Refusal](err); ok && r.Reason != room.Failed && m.now.Sub(t.Arrived) < m.rm.Config().QueueTimeout {
			m.t.Fatalf("refused after %v of %v", m.now.Sub(t.Arrived), m.rm.Config().QueueTimeout)
		}
		m.line = slices.Delete(m.line, i, i+1)
	}
}

func (m *model) check() {
	t, rm := m.t, m.rm
	inFlight := map[*room.Replica]int{}
	for _, r := range m.held {
		inFlight[r]++
	}
	for _, r := range slices.Concat(rm.Replicas(), rm.Leaving()) {
		if r.InFlight() != inFlight[r] {
			t.Fatalf("replica %s counts %d in flight, want %d", r.Name, r.InFlight(), inFlight[r])
		}
		delete(inFlight, r)
	}
	if len(inFlight) > 0 {
		t.Fatalf("%d replicas with requests are forgotten", len(inFlight))
	}
	if rm.Waiting() != len(m.line) || rm.Waiting() > rm.Config().QueueLimit {
		t.Fatalf("%d wait, want %d and at most %d", rm.Waiting(), len(m.line), rm.Config().QueueLimit)
	}
	for _, r := range rm.Replicas() {
		if m.limit > 0 && r.InFlight() >= m.limit {
			continue
		}
		for _, waits := range m.line {
			if m.tried[waits] != r {
				t.Fatalf("a ticket waits while replica %s has %d of %d", r.Name, r.InFlight(), m.limit)
			}
		}
	}
	if deadline, ok := rm.NextDeadline(); ok != (len(m.line) > 0) || ok && deadline != m.line[0].Arrived.Add(rm.Config().QueueTimeout) {
		t.Fatalf("deadline: got %v, %t, want that of the first in line", deadline, ok)
	}
	if got, want := rm.Measure(m.now), (room.Measure{At: m.now.Sub(epoch), Arrivals: m.arrivals, Busy: sum(m.busy), Waited: m.waited}); got != want {
		t.Fatalf("measure: got %+v, want %+v", got, want)
	}
}

func sum(of map[string]time.Duration) (total time.Duration) {
	for d := range maps.Values(of) {
		total += d
	}
	return total
}

// Whatever happens in whatever order: nobody waits while a place is free for them, places are given in order of arrival and
// never twice, limits hold, and integrals are exact.
func TestAnyOrderOfEvents(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		behaviour := []resource.Behaviour{resource.Fast, resource.Azure}[rnd.IntN(2)]
		c := room.Config{Target: rnd.IntN(3), Settings: resource.Settings{
			Behaviour: behaviour, MaxConcurrency: 1 + rnd.IntN(3), QueueLimit: 1 + rnd.IntN(6), QueueTimeout: time.Duration(1+rnd.IntN(5)) * time.Second,
		}}
		m := &model{t: t, rm: room.New(epoch), now: epoch, limit: c.MaxConcurrency,
			held: map[*room.Ticket]*room.Replica{}, tried: map[*room.Ticket]*room.Replica{}, busy: map[string]time.Duration{}}
		set(m.rm, c, epoch)
		generation := 0
		for range 300 {
			m.pass(time.Duration(rnd.IntN(500)) * time.Millisecond)
			m.rm.Expire(m.now) // as its owner does at each deadline
			m.settle()
			switch rnd.IntN(10) {
			case 0, 1, 2, 3: // one arrives, sometimes one that has waited elsewhere
				ticket := &room.Ticket{Arrived: m.now.Add(-time.Duration(rnd.IntN(2)*rnd.IntN(900)) * time.Millisecond)}
				m.claim(ticket)
			case 4, 5, 6: // one ends
				if ticket, r := m.any(rnd); ticket != nil {
					delete(m.held, ticket)
					m.rm.Release(r, m.now)
				}
			case 7: // one finds that its replica accepts no connection
				if ticket, r := m.any(rnd); ticket != nil && m.tried[ticket] == nil && m.now.Sub(ticket.Arrived) < c.QueueTimeout {
					delete(m.held, ticket)
					m.rm.Release(r, m.now)
					m.settle()
					m.rm.Shun(ticket, r, m.now)
					m.tried[ticket] = r
					m.claim(ticket)
				}
			case 8: // replicas come and go
				var names []string
				for i := range rnd.IntN(4) {
					if rnd.IntN(4) == 0 {
						generation++
					}
					names = append(names, fmt.Sprint(i, " of generation ", generation))
				}
				if len(names) <= 1 {
					clear(m.tried) // who waits has tried all that there are, and tries again
				}
				set(m.rm, c, m.now, names...)
			case 9: // a client leaves the line
				if len(m.line) > 0 {
					i := rnd.IntN(len(m.line))
					if !m.rm.Leave(m.line[i], m.now) {
						t.Fatal("a ticket in line cannot leave it")
					}
					m.line = slices.Delete(m.line, i, i+1)
				}
			}
			m.settle()
			m.check()
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
	}
}

// claim claims a place and takes down what came of it.
func (m *model) claim(ticket *room.Ticket) {
	again := m.tried[ticket] != nil
	r, err := m.rm.Claim(ticket, m.now)
	if !again {
		m.arrivals++
	}
	switch refusal, ok := errors.AsType[*room.Refusal](err); {
	case err == nil:
		m.place(ticket, r)
	case errors.Is(err, room.ErrWaits):
		i := len(m.line)
		for i > 0 && ticket.Arrived.Before(m.line[i-1].Arrived) {
			i--
		}
		m.line = slices.Insert(m.line, i, ticket)
	case ok && refusal.Reason == room.LineFull && len(m.line) == m.rm.Config().QueueLimit:
	case errors.Is(err, room.ErrTried) && again:
	default:
		m.t.Fatalf("claim: %v with %d in line", err, len(m.line))
	}
}

// any returns one of the tickets with a place.
func (m *model) any(rnd *rand.Rand) (*room.Ticket, *room.Replica) {
	all := slices.SortedFunc(maps.Keys(m.held), func(a, b *room.Ticket) int { return a.Arrived.Compare(b.Arrived) })
	if len(all) == 0 {
		return nil, nil
	}
	ticket := all[rnd.IntN(len(all))]
	return ticket, m.held[ticket]
}
