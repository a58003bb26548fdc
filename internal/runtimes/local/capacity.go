package local

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"penstock/internal/resource"
	"penstock/internal/runtimes"
)

// Capacity is what a machine offers to containers.
//
// Memory is promised: the sum of the replicas' limits stays below what may be promised. CPU is not promised: a replica
// that wants more than is available runs slower. Disk space is not promised either, because few replicas fill their
// disks. Instead, no replica is created while less than a reserve is free, so that the running replicas can continue to
// write.
type Capacity struct {
	Memory   int64 // bytes; 0: no bound
	Reserve  int64 // bytes that are never promised: for the platform, the system and the page cache
	MilliCPU int64 // thousandths of a CPU; 0: unknown
	// Overcommit multiplies what may be promised, for machines whose replicas use less than they ask for. 0 means 1.
	Overcommit float64
	// DiskFree returns how many bytes are free on the disk that replicas write to. DiskReserve is how many must be free
	// for another replica to be created. nil means that this is not known.
	DiskFree    func() (int64, error)
	DiskReserve int64
}

// promise returns how many bytes of memory the replicas may have together. 0 means no bound.
func (c Capacity) promise() int64 {
	if c.Memory == 0 {
		return 0
	}
	return max(1, int64(float64(c.Memory-c.Reserve)*cmp.Or(c.Overcommit, 1)))
}

// fits returns an error for a revision of which not even one replica can ever run here.
func (c Capacity) fits(rev resource.Revision) error {
	need, most := memory(rev), c.promise()
	if most == 0 || need <= most {
		return nil
	}
	return fmt.Errorf("%w: a replica needs %s of memory (%s); this machine can promise %s (%s)",
		runtimes.ErrTooLarge, bytes(need), sum(rev), bytes(most), c.terms())
}

func (c Capacity) terms() string {
	s := fmt.Sprintf("%s less a reserve of %s", bytes(c.Memory), bytes(c.Reserve))
	if c.Overcommit != 0 && c.Overcommit != 1 {
		s += " times " + strconv.FormatFloat(c.Overcommit, 'f', -1, 64)
	}
	return s
}

// diskAgain is the pause before free disk space is checked again. Nothing signals that a file was removed.
const diskAgain = 5 * time.Second

// refusal says why a replica cannot be created now.
type refusal struct {
	reason  string // reason of the event
	message string
	again   time.Duration // when to ask again; 0: when another replica has gone
}

// space refuses a replica while the disk has no more free space than its reserve. It allows the replica if the free
// space cannot be read.
func (c Capacity) space() *refusal {
	if c.DiskFree == nil {
		return nil
	}
	free, err := c.DiskFree()
	if err != nil || free >= c.DiskReserve {
		return nil
	}
	return &refusal{"InsufficientDisk", fmt.Sprintf("waiting for disk space: %s are free, and %s are kept free for the replicas that run",
		bytes(free), bytes(c.DiskReserve)), diskAgain}
}

// admit promises a replica its memory, or returns why that is not possible now.
func (e *Engine) admit(k *keeper) *refusal {
	if no := e.cfg.Capacity.space(); no != nil {
		return no
	}
	need, most := memory(k.rev), e.cfg.Capacity.promise()
	e.mu.Lock()
	var used int64
	for _, n := range e.promised {
		used += n
	}
	if most == 0 {
		e.promised[k.name] = need
		e.mu.Unlock()
		return nil
	}
	now, free := time.Now(), most-used
	wasKept := e.room.keptFor
	ok, began, again := e.room.ask(now, k.name, need, free)
	if ok {
		e.promised[k.name] = need
		e.mu.Unlock()
		if wasKept == k.name {
			e.tellWaiting() // what it leaves is for the others
		}
		return nil
	}
	no := &refusal{reason: "InsufficientMemory"}
	if !again.IsZero() {
		no.again = max(again.Sub(now), time.Millisecond)
	}
	kept := ""
	if other := e.keepers[e.room.keptFor]; other != nil && other != k && need <= free {
		kept = fmt.Sprintf(", but kept for a replica of %s, which needs %s and has waited longer", other.rev.Name(), bytes(memory(other.rev)))
	}
	no.message = fmt.Sprintf("waiting for memory: needs %s, %s of %s are free%s; in use by %s", bytes(need), bytes(max(0, free)), bytes(most), kept, e.users())
	if need > free {
		e.evict(need - free)
	}
	first := e.keepers[began]
	e.mu.Unlock()
	if first != nil {
		first.tell(normal, "MemoryKept", 0, "Replica '%s' needs %s and has waited for %s: memory that becomes free is kept for it.",
			first.name, bytes(memory(first.rev)), patience)
	}
	return no
}

// users lists how much memory each revision uses, the largest first. The caller holds mu.
func (e *Engine) users() string {
	type user struct {
		name  string
		bytes int64
		count int
	}
	by := map[string]*user{}
	for replica, n := range e.promised {
		name := replica // a stray has no revision
		if k := e.keepers[replica]; k != nil {
			name = k.rev.Name()
		}
		u := by[name]
		if u == nil {
			u = &user{name: name}
			by[name] = u
		}
		u.bytes, u.count = u.bytes+n, u.count+1
	}
	list := slices.SortedFunc(maps.Values(by), func(a, b *user) int {
		return cmp.Or(cmp.Compare(b.bytes, a.bytes), cmp.Compare(a.name, b.name))
	})
	var words []string
	for i, u := range list {
		if i == 5 { // more would not be read; the list of replicas has all of them
			words = append(words, fmt.Sprintf("%d more", len(list)-i))
			break
		}
		word := fmt.Sprintf("%s %s", u.name, bytes(u.bytes))
		if u.count > 1 {
			word += fmt.Sprintf(" (%d replicas)", u.count)
		}
		words = append(words, word)
	}
	return strings.Join(words, ", ")
}

// tooSmall returns events about what a revision wants and this machine does not have. It does so once for each revision. The
// caller holds mu.
func (e *Engine) tooSmall(rev resource.Revision) (list []resource.Event) {
	key := rev.ID.Key()
	if e.told[key] {
		return nil
	}
	e.told[key] = true
	ev := resource.Event{At: time.Now(), App: rev.App(), Revision: rev.Name(), Source: eventSource}
	if have := e.cfg.Capacity.MilliCPU; have > 0 && milliCPU(rev) > have {
		ev.Warning, ev.Reason = true, "InsufficientCPU"
		ev.Message = fmt.Sprintf("A replica asks for %s vCPU and this machine has %s: it runs, slower than it would with all of them.",
			cpus(milliCPU(rev)), cpus(have))
		list = append(list, ev)
	}
	need, most, n := memory(rev), e.cfg.Capacity.promise(), int64(rev.Template.Scale.Max)
	if most > 0 && need > 0 && need <= most && n > most/need {
		ev.Warning, ev.Reason = false, "MaxReplicasBeyondMachine"
		ev.Message = fmt.Sprintf("maxReplicas is %d, and that many replicas of %s would need %s of memory. This machine can promise %s (%s): at most %d run at a time, and others wait.",
			n, bytes(need), bytes(n*need), bytes(most), e.cfg.Capacity.terms(), most/need)
		list = append(list, ev)
	}
	return list
}

// memory returns what a replica needs at most at any time. That is the sum of its containers, or one of its init
// containers, which run before them.
func memory(rev resource.Revision) (n int64) {
	for _, c := range rev.Template.Containers {
		n += c.Resources.Memory
	}
	for _, c := range rev.Template.InitContainers {
		n = max(n, c.Resources.Memory)
	}
	return n
}

// milliCPU returns the CPU of a replica's containers. Init containers do not count towards a replica's size.
func milliCPU(rev resource.Revision) (n int64) {
	for _, c := range rev.Template.Containers {
		n += c.Resources.MilliCPU
	}
	return n
}

// sum formats what the containers of a replica need: "web 1 GiB + cache 0.5 GiB".
func sum(rev resource.Revision) string {
	var words []string
	together := int64(0)
	for _, c := range rev.Template.Containers {
		together += c.Resources.Memory
		words = append(words, c.Name+" "+bytes(c.Resources.Memory))
	}
	if need := memory(rev); together < need {
		for _, c := range rev.Template.InitContainers {
			if c.Resources.Memory == need {
				return "init container " + c.Name
			}
		}
	}
	return strings.Join(words, " + ")
}

// diskLimit returns the size of a replica's disk, which depends on its vCPU
// (learn.microsoft.com/azure/container-apps/storage-mounts, "Ephemeral storage").
func diskLimit(rev resource.Revision) int64 {
	switch cpu := milliCPU(rev); {
	case cpu <= 250:
		return 1 << 30
	case cpu <= 500:
		return 2 << 30
	case cpu <= 1000:
		return 4 << 30
	default:
		return 8 << 30
	}
}

// bytes formats an amount of memory.
func bytes(n int64) string {
	unit, name := int64(1<<30), " GiB"
	if n < unit/10 {
		unit, name = 1<<20, " MiB"
	}
	s := strconv.FormatFloat(float64(n)/float64(unit), 'f', 2, 64)
	return strings.TrimRight(strings.TrimRight(s, "0"), ".") + name
}

// cpus formats an amount of CPU.
func cpus(milli int64) string { return strconv.FormatFloat(float64(milli)/1000, 'f', -1, 64) }
