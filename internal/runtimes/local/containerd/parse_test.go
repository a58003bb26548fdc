package containerd_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"penstock/internal/runtimes/local/containerd"
)

// record was written by kernel 6.18.
const record = "6,1510,3370020125,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=c1,mems_allowed=0,oom_memcg=/penstock/r/c1,task_memcg=/penstock/r/c1,task=hello,pid=21134,uid=-536739840\n"

func TestKilledProcessIsFoundInTheKernelsLog(t *testing.T) {
	tests := map[string]struct{ record, cgroup, want string }{
		"its cgroup":                     {record, "/penstock/r/c1", "hello"},
		"a cgroup above":                 {record, "/penstock/r", "hello"},
		"another whose name is longer":   {record, "/penstock/r/c", ""},
		"another":                        {record, "/penstock/x/c1", ""},
		"a line of something else":       {"6,1,2,-;eth0: link up\n", "/penstock/r/c1", ""},
		"only the human-readable line":   {"3,1511,3370020192,-;Memory cgroup out of memory: Killed process 21134 (hello)\n", "/penstock/r/c1", ""},
		"continuation lines are no part": {"6,1,2,-;oom-kill:task=hello\n task_memcg=/penstock/r/c1", "/penstock/r/c1", ""},
	}
	for name, test := range tests {
		if got := containerd.KilledIn(test.record, test.cgroup); got != test.want {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}

// sockets is from /proc/net/tcp and tcp6 of an amd64 kernel.
const sockets = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1 0 100 0 0 10 0
   0: 00000000000000000000000000000000:1F91 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4 1 0 100 0 0 10 0
   1: 00000000000000000000000001000000:1F92 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 5 1 0 100 0 0 10 0
   2: 0000000000000000FFFF00000500580A:1F93 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 6 1 0 100 0 0 10 0
   3: no:1F94 00000000:0000 0A
   4: 00:FFFFF 00000000:0000 0A
   2: 0500580A:1F40 0100580A:C001 01 00000000:00000000 00:00000000 00000000     0        0 3 1 0 100 0 0 10 0
   5: 00000000:1F95 00000000:0000 0A
`

func TestListeners(t *testing.T) {
	var got []string
	for _, s := range containerd.Listeners(strings.NewReader(sockets)) {
		got = append(got, s.String())
	}
	if want := []string{"0.0.0.0:8000", "127.0.0.1:8080", "[::]:8081", "[::1]:8082", "10.88.0.5:8083"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func FuzzListeners(f *testing.F) {
	f.Add(sockets)
	f.Fuzz(func(t *testing.T, table string) {
		for _, s := range containerd.Listeners(strings.NewReader(table)) {
			if !s.IsValid() {
				t.Errorf("an address that is none: %v", s)
			}
		}
	})
}

func FuzzKilledIn(f *testing.F) {
	f.Add(record, "/penstock/r/c1")
	f.Add("oom-kill:task=,task_memcg=", "/")
	f.Fuzz(func(t *testing.T, record, cgroup string) {
		if got := containerd.KilledIn(record, cgroup); !strings.Contains(record, got) {
			t.Errorf("%q is not in %q", got, record)
		}
	})
}

func TestCounters(t *testing.T) {
	tests := map[string]struct {
		text, key string
		want      uint64
		bad       bool
	}{
		"one number":            {"123\n", "", 123, false},
		"no limit in v2":        {"max\n", "", 0, false},
		"line of several":       {"low 0\noom_kill 3\n", "oom_kill", 3, false},
		"a longer word is not":  {"oom_kill_disable 0\noom_kill 2\n", "oom_kill", 2, false},
		"missing line":          {"low 0\n", "oom_kill", 0, true},
		"no number":             {"abc\n", "", 0, true},
		"empty":                 {"", "", 0, true},
		"negative":              {"-1\n", "", 0, true},
		"v1 without a limit":    {"9223372036854771712\n", "", 9223372036854771712, false},
		"spaces before the end": {"usage_usec  77\n", "usage_usec", 77, false},
	}
	for name, test := range tests {
		got, err := containerd.ParseCounter(test.text, test.key)
		if got != test.want || (err != nil) != test.bad {
			t.Errorf("%s: got %d, %v, want %d, failed: %v", name, got, err, test.want, test.bad)
		}
	}
}

func FuzzParseCounter(f *testing.F) {
	f.Add("oom_kill 3\n", "oom_kill")
	f.Add("max", "")
	f.Fuzz(func(t *testing.T, text, key string) {
		if n, err := containerd.ParseCounter(text, key); err != nil && n != 0 {
			t.Errorf("%d with %v", n, err)
		}
	})
}

func TestHierarchiesOfV1AreFound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mountinfo")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`24 1 0:22 / / rw - ext4 /dev/vda rw
30 25 0:26 / /cg/cpu,cpuacct rw,relatime shared:1 - cgroup cgroup rw,cpu,cpuacct
31 25 0:27 / /cg/memory rw,relatime - cgroup cgroup rw,memory
32 25 0:28 / /cg/pids rw,relatime - cgroup cgroup rw,pids
33 25 0:29 / /cg/unified rw,relatime - cgroup2 cgroup2 rw
`)
	_, v1, err := containerd.FindCgroups(t.TempDir(), path)
	if err != nil {
		t.Fatal(err)
	}
	for controller, want := range map[string]string{"cpu": "/cg/cpu,cpuacct", "cpuacct": "/cg/cpu,cpuacct", "memory": "/cg/memory", "pids": "/cg/pids", "unified": "/cg/unified"} {
		if v1[controller] != want {
			t.Errorf("%s: got %q, want %q", controller, v1[controller], want)
		}
	}
	write("31 25 0:27 / /cg/memory rw,relatime - cgroup cgroup rw,memory\n")
	if _, _, err := containerd.FindCgroups(t.TempDir(), path); err == nil || !strings.Contains(err.Error(), "cpu controller is not mounted") {
		t.Errorf("without the cpu controller: %v", err)
	}
}

func FuzzReadRecord(f *testing.F) {
	f.Add([]byte(`{"Version":1,"Replica":"r","Address":"10.1.0.2"}`))
	f.Add([]byte(`{"Version":2}`))
	f.Add([]byte(`{`))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(dir, "record.json")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := containerd.ReadRecord(path); err == nil && s.Version != 1 {
			t.Errorf("took %q", b)
		}
	})
}
