package local

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// waitingRoom decides which of the replicas that wait for memory gets the free memory. It takes the time as an argument.
//
// Usually each replica that fits starts, so a large one does not block smaller ones. But where small replicas come and go,
// there might never be enough memory free at once for a large one. So after some time, free memory is kept for the replica
// that has waited longest, as long as more and more memory becomes free. If none does, the others take turns again.
//
//	first refused ── patience ──> kept for it ── enough has become free ──> admitted
//	                   ^                │ nothing has become free for a time
//	                   └──── pause ─────┘ the others may start; the next time is twice as long
type waitingRoom struct {
	waiting map[string]*waiter // by replica
	// keptFor is the replica for which free memory is kept until a time; "" means none. Then it is the end of the pause.
	keptFor string
	until   time.Time
	frees   uint64 // counts how often memory was given back
}

type waiter struct {
	need  int64
	since time.Time
	keeps int    // how often memory was kept for it in vain
	frees uint64 // count of frees when it began to wait, or when memory was last kept for it in vain
}

const (
	// patience is how long a replica waits before free memory is kept for it.
	patience = 30 * time.Second
	// Memory is kept until nothing has become free for firstKeep. That doubles each time it was in vain, up to longestKeep,
	// which is less than requests wait for the replicas that could have had the memory (penstock.queue-timeout). The pause
	// after it is as long.
	firstKeep   = time.Minute
	longestKeep = 3 * time.Minute
)

func newWaitingRoom() waitingRoom { return waitingRoom{waiting: map[string]*waiter{}} }

// ask reports whether a replica may have the memory that it needs. If not, it returns when to ask again even if no memory was
// given back, or zero. began names the replica for which memory is kept from now on, or is empty.
func (w *waitingRoom) ask(now time.Time, replica string, need, free int64) (ok bool, began string, again time.Time) {
	one := w.waiting[replica]
	if one == nil {
		one = &waiter{need: need, since: now, frees: w.frees}
	}
	before := w.keptFor
	w.turn(now)
	if need <= free-w.kept(replica) {
		w.leave(now, replica)
		return true, "", again
	}
	w.waiting[replica] = one
	w.turn(now) // it may be the one whose turn it is
	if w.keptFor != before {
		began = w.keptFor
	}
	return false, began, w.next()
}

// kept returns how much memory is kept for others than this replica.
func (w *waitingRoom) kept(replica string) int64 {
	if w.keptFor == "" || w.keptFor == replica {
		return 0
	}
	return w.waiting[w.keptFor].need
}

// freed records that a replica has given back its memory.
func (w *waitingRoom) freed(now time.Time) {
	w.frees++
	if w.keptFor != "" {
		w.until = now.Add(w.waiting[w.keptFor].patience())
	}
}

// leave forgets a replica that no longer waits.
func (w *waitingRoom) leave(now time.Time, replica string) {
	delete(w.waiting, replica)
	if w.keptFor == replica {
		w.keptFor, w.until = "", now
	}
}

func (o *waiter) patience() time.Duration { return min(firstKeep<<min(o.keeps, 10), longestKeep) }

// turn ends what is over and begins what is due.
func (w *waitingRoom) turn(now time.Time) {
	if w.keptFor != "" {
		if now.Before(w.until) {
			return
		}
		one := w.waiting[w.keptFor]
		pause := one.patience()
		one.keeps, one.frees = one.keeps+1, w.frees
		w.keptFor, w.until = "", w.until.Add(pause)
	}
	if now.Before(w.until) {
		return
	}
	for _, name := range w.order() {
		one := w.waiting[name]
		// If nothing was given back since it waits, nothing will be by keeping it.
		if now.Sub(one.since) >= patience && one.frees != w.frees {
			w.keptFor, w.until = name, now.Add(one.patience())
			return
		}
	}
}

// next returns when turn may have something to do: at the end of a keep or a pause, or when a replica has waited long enough.
func (w *waitingRoom) next() (at time.Time) {
	if w.keptFor != "" {
		return w.until
	}
	for _, one := range w.waiting {
		if one.frees == w.frees {
			continue // the memory that is given back next triggers a look
		}
		if due := one.since.Add(patience); at.IsZero() || due.Before(at) {
			at = due
		}
	}
	if !at.IsZero() && at.Before(w.until) {
		at = w.until
	}
	return at
}

// order lists the waiting replicas by whose turn it is: those for which memory was kept least often, then those that have
// waited longest.
func (w *waitingRoom) order() []string {
	return slices.SortedFunc(maps.Keys(w.waiting), func(a, b string) int {
		x, y := w.waiting[a], w.waiting[b]
		return cmp.Or(cmp.Compare(x.keeps, y.keeps), x.since.Compare(y.since), cmp.Compare(a, b))
	})
}
