package jobplan_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"penstock/internal/jobplan"
	"penstock/internal/resource"
)

// machine is a server, its store and its engine in virtual time. The server can be killed between any two of its steps,
// and the machine can reboot. The store and the list of the engine outlive both.
type machine struct {
	t    *testing.T
	rand *rand.Rand
	now  time.Time
	cron resource.Cron

	job        resource.Job
	executions map[string]resource.Execution // by name
	processes  map[string]*process           // what the engine lists, by replica
	starts     map[string]int                // how often the engine started a replica
	names      int
	killing    bool
	fuse       int // the server is killed after so many steps of this look, if it has as many

	newest time.Time // the newest scheduled time up to now
}

// process is a replica in the engine.
type process struct {
	execution     string
	started, ends time.Time
	fails         bool
}

func newMachine(t *testing.T, seed uint64) *machine {
	m := &machine{
		t: t, rand: rand.New(rand.NewPCG(seed, 1)), now: start, newest: start, killing: true,
		executions: map[string]resource.Execution{}, processes: map[string]*process{}, starts: map[string]int{},
	}
	crons := []string{"* * * * *", "*/7 * * * *", "0 * * * *", "30 */6 * * *", "15 3 * * 1"}
	m.job = scheduled(crons[m.rand.IntN(len(crons))])
	m.job.Configuration.ExecutionPolicy = resource.ExecutionPolicy{
		Timeout: time.Hour, Completions: 1 + m.rand.IntN(3), Parallelism: 1 + m.rand.IntN(3), Retries: m.rand.IntN(3),
	}
	var err error
	if m.cron, err = resource.ParseCron(m.job.Configuration.Cron); err != nil {
		t.Fatal(err)
	}
	return m
}

// pass lets time go by.
func (m *machine) pass(d time.Duration) {
	m.now = m.now.Add(d)
	for at := m.cron.Next(m.newest); !at.After(m.now); at = m.cron.Next(at) {
		m.newest = at
	}
}

// killed says whether the server is killed now.
func (m *machine) killed() bool {
	m.fuse--
	return m.killing && m.fuse == 0
}

// look does what reconcile does for a job, in the same order. It returns false when the server was killed in the middle.
func (m *machine) look() bool {
	m.t.Helper()
	m.fuse = 1 + m.rand.IntN(20)
	due, err := jobplan.Schedule(m.job, m.list(), m.now)
	if err != nil {
		m.t.Fatal(err)
	}
	if m.killed() {
		return false
	}
	if e := due.Start; e != nil {
		if _, exists := m.executions[e.Name()]; !exists {
			m.executions[e.Name()] = *e
		}
	}
	if m.killed() {
		return false
	}
	if !due.At.IsZero() {
		m.job.LastDue = due.At
	}
	m.checkNewest()
	for _, e := range m.list() {
		if e.Over() {
			m.remove(e)
			continue
		}
		e, step := jobplan.Advance(e, m.listed(e), jobplan.Backoff{}, m.now, func() string { m.names++; return fmt.Sprintf("%s-%d", e.Name(), m.names) })
		if m.killed() {
			return false
		}
		m.executions[e.Name()] = e
		if m.killed() {
			return false
		}
		if step.Remove {
			m.remove(e)
			continue
		}
		if !m.execute(e, step) {
			return false
		}
	}
	return true
}

// list returns the stored executions, the oldest first.
func (m *machine) list() (all []resource.Execution) {
	for _, name := range slices.Sorted(maps.Keys(m.executions)) {
		all = append(all, m.executions[name])
	}
	return all
}

// listed returns what the engine knows of an execution.
func (m *machine) listed(e resource.Execution) (all []resource.Replica) {
	for name, p := range m.processes {
		if p.execution != e.Name() {
			continue
		}
		r := replica(name, resource.ReplicaReady, p.started, time.Time{})
		if !p.ends.After(m.now) {
			state := resource.ReplicaSucceeded
			if p.fails {
				state = resource.ReplicaFailed
			}
			r = replica(name, state, p.started, p.ends)
		}
		all = append(all, r)
	}
	return all
}

func (m *machine) remove(e resource.Execution) {
	maps.DeleteFunc(m.processes, func(_ string, p *process) bool { return p.execution == e.Name() })
}

// execute starts the replicas of a step in the engine. It returns false when the server was killed in the middle.
func (m *machine) execute(e resource.Execution, step jobplan.Step) bool {
	for _, name := range step.Replicas {
		if m.processes[name] != nil || slices.Contains(step.Begun, name) {
			continue
		}
		m.starts[name]++
		m.processes[name] = &process{
			execution: e.Name(), started: m.now, ends: m.now.Add(time.Duration(1+m.rand.IntN(90)) * time.Second), fails: m.rand.IntN(4) == 0,
		}
		if m.killed() {
			return false
		}
	}
	return true
}

// disturb removes replicas from outside, or reboots the machine, which ends all of them.
func (m *machine) disturb() {
	for _, e := range m.list() {
		for _, r := range e.Replicas {
			if !r.Started.IsZero() && r.Ended.IsZero() && m.rand.IntN(50) == 0 {
				delete(m.processes, r.Name)
			}
		}
	}
	if m.rand.IntN(50) > 0 {
		return
	}
	for _, p := range m.processes {
		if p.ends.After(m.now) {
			p.ends, p.fails = m.now, true
		}
	}
}

// checkNewest checks that the newest scheduled time has its execution, unless the server came back too late for it.
func (m *machine) checkNewest() {
	m.t.Helper()
	if m.job.Suspended || !m.newest.After(m.job.ScheduledFrom) {
		return
	}
	exists := slices.ContainsFunc(m.list(), func(e resource.Execution) bool { return e.Due.Equal(m.newest) })
	if late := m.now.Sub(m.newest); !exists && late <= time.Hour {
		m.t.Fatalf("%s: the execution of %s (%s) is lost", m.now, m.newest, m.job.Configuration.Cron)
	}
}

// check checks that nothing was executed twice.
func (m *machine) check() {
	m.t.Helper()
	due := map[time.Time]string{}
	started := map[string]int{}
	for name, n := range m.starts {
		if n > 1 {
			m.t.Fatalf("%s: replica %s was started %d times", m.now, name, n)
		}
	}
	for name, e := range m.executions {
		if other := due[e.Due]; other != "" {
			m.t.Fatalf("%s: %s and %s are both of %s", m.now, name, other, e.Due)
		}
		due[e.Due] = name
		if !e.Due.After(m.job.ScheduledFrom) || m.cron.Next(e.Due.Add(-time.Second)) != e.Due {
			m.t.Fatalf("%s: %s is not a time of the schedule %q", name, e.Due, m.job.Configuration.Cron)
		}
		for _, r := range e.Replicas {
			started[name] += m.starts[r.Name]
		}
		if p := e.Policy; started[name] > p.Completions+p.Retries {
			m.t.Fatalf("%s: %d replicas were started for %d completions and %d retries", name, started[name], p.Completions, p.Retries)
		}
	}
}

// No scheduled time is executed twice, and none is lost while the server can make up for it, whenever the server is killed.
// Every execution comes to the end that its replicas call for.
func TestRunsOverKills(t *testing.T) {
	kills, ran := 0, 0
	for seed := range uint64(40) {
		m := newMachine(t, seed)
		for range 250 {
			m.disturb()
			if m.look() {
				m.pass(time.Duration(1+m.rand.IntN(60)) * time.Second)
			} else {
				kills++
				m.pass(time.Duration(m.rand.IntN(60)) * time.Second)
				if m.rand.IntN(20) == 0 {
					m.pass(time.Duration(m.rand.IntN(180)) * time.Minute)
				}
			}
			m.check()
		}
		m.killing, m.job.Suspended = false, true
		n := len(m.executions)
		for range 100 {
			m.look()
			m.pass(time.Minute)
			m.check()
		}
		if len(m.executions) != n {
			t.Errorf("seed %d: %d executions started while the job was suspended", seed, len(m.executions)-n)
		}
		for name, e := range m.executions {
			ran++
			succeeded := 0
			for _, r := range e.Replicas {
				if r.Ended.IsZero() {
					t.Errorf("seed %d: replica %s has no end", seed, r.Name)
				}
				if r.Succeeded {
					succeeded++
				}
			}
			want := resource.ExecutionFailed
			if succeeded >= e.Policy.Completions {
				want = resource.ExecutionSucceeded
			}
			if e.State != want {
				t.Errorf("seed %d: %s is %s with %d of %d successes", seed, name, e.State, succeeded, e.Policy.Completions)
			}
		}
		if t.Failed() {
			t.Fatalf("failed with seed %d", seed)
		}
	}
	t.Logf("%d kills, %d executions", kills, ran)
	if kills < 1000 || ran < 500 {
		t.Errorf("%d kills and %d executions prove little", kills, ran)
	}
}
