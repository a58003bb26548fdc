package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Level says how bad a finding is.
type Level string

const (
	OK   Level = "ok"
	Warn Level = "warn" // it works, with less
	Fail Level = "fail" // a server with containers will not work
)

// Finding is what one check found.
type Finding struct {
	Check string `json:"check"`
	Level Level  `json:"level"`
	Found string `json:"found"`
	// Means says what that has for consequences, and Mend what to do. Both are empty when all is well.
	Means string `json:"means,omitempty"`
	Mend  string `json:"mend,omitempty"`
}

// Listener is an address that the server wants.
type Listener struct {
	Name, Address, Setting string
}

// Options say what the server would run with.
type Options struct {
	Data      string // folder; it need not be there yet
	Engines   string // folder of the shim and runc
	Runtime   string // "containerd" or "fake"
	Domain    string
	Listeners []Listener
	// Running is the pid of the server that has the data folder; 0 when none runs.
	Running int
}

// checkLimit bounds one check: a hung mount or name server is a finding too.
const checkLimit = 10 * time.Second

// check is one question to the machine. Those of the engine matter only where containers run.
type check struct {
	name   string
	engine bool
	run    func(context.Context, Options) []Finding
}

func checks() []check {
	return []check{
		{"rights", true, rights},
		{"kernel", true, kernel},
		{"cgroups", true, cgroups},
		{"overlayfs", true, overlay},
		{"user namespaces", true, userNamespaces},
		{"nftables", true, nftablesRules},
		{"bridge and veth", true, links},
		{"loop devices", true, loop},
		{"seccomp", true, seccomp},
		{"kernel log", true, kernelLog},
		{"shim", true, shim},
		{"runc", true, runc},
		{"firewall", true, firewall},
		{"Dockerfile builder", true, builder},
		{"disk", false, disk},
		{"memory", false, memory},
		{"ports", false, ports},
		{"names", false, names},
	}
}

// Run tries everything and returns what it found, in an order that does not change.
func Run(ctx context.Context, o Options) []Finding {
	var all []Finding
	for _, c := range checks() {
		if c.engine && o.Runtime == "fake" {
			continue
		}
		all = append(all, limited(ctx, c, o)...)
	}
	return all
}

func limited(ctx context.Context, c check, o Options) []Finding {
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	answer := make(chan []Finding, 1)
	go func() { answer <- c.run(ctx, o) }() // a system call that hangs cannot be ended; the program ends soon
	select {
	case found := <-answer:
		for i := range found {
			if found[i].Check == "" {
				found[i].Check = c.name
			}
		}
		return found
	case <-ctx.Done():
		return []Finding{{Check: c.name, Level: Fail, Found: fmt.Sprintf("no answer within %s", checkLimit), Means: "the kernel or a service hangs"}}
	}
}

// Failed says whether something that is needed does not work.
func Failed(found []Finding) bool {
	return slices.ContainsFunc(found, func(f Finding) bool { return f.Level == Fail })
}

func ok(format string, args ...any) []Finding {
	return []Finding{{Level: OK, Found: fmt.Sprintf(format, args...)}}
}

func warn(means, mend, format string, args ...any) []Finding {
	return []Finding{{Level: Warn, Found: fmt.Sprintf(format, args...), Means: means, Mend: mend}}
}

func fail(means, mend, format string, args ...any) []Finding {
	return []Finding{{Level: Fail, Found: fmt.Sprintf(format, args...), Means: means, Mend: mend}}
}

// asRoot is how to mend what only root may do.
const asRoot = "run as root: sudo penstock doctor"

// home is the data folder, or the nearest folder above it that is there: what is tried must be tried on its disk.
func home(data string) string {
	dir := data
	for {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return dir
		}
		dir = parent
	}
}

// scratch makes a folder on the data folder's disk.
func scratch(o Options) (dir string, remove func(), err error) {
	dir, err = os.MkdirTemp(home(o.Data), ".penstock-doctor-")
	if err != nil {
		return "", nil, err
	}
	return dir, func() { os.RemoveAll(dir) }, nil
}
