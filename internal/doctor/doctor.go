package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Level is the severity of a finding.
type Level string

const (
	OK   Level = "ok"
	Warn Level = "warn" // it works, with restrictions
	Fail Level = "fail" // a server with containers will not work
)

// Finding is the result of one check.
type Finding struct {
	Check string `json:"check"`
	Level Level  `json:"level"`
	Found string `json:"found"`
	// Means is the consequence, and Mend what to do about it. Both are empty when all is well.
	Means string `json:"means,omitempty"`
	Mend  string `json:"mend,omitempty"`
}

// Listener is an address that the server needs.
type Listener struct {
	Name, Address, Setting string
}

// Options are the settings that the server would run with.
type Options struct {
	Data      string // data folder; it need not exist yet
	Engines   string // folder with the shim and runc
	Runtime   string // "containerd" or "fake"
	Domain    string
	Listeners []Listener
	// Running is the pid of the server on the data folder, or 0 if none runs.
	Running int
}

// checkLimit is the time limit of one check: a hung mount or name server is also a finding.
const checkLimit = 10 * time.Second

// check is one check of the machine. Checks of the engine run only for an engine that runs containers.
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
		{"open files", false, openFiles},
		{"ports", false, ports},
		{"names", false, names},
	}
}

// Run runs all checks and returns their findings, always in the same order.
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
	go func() { answer <- c.run(ctx, o) }() // a hanging system call cannot be interrupted, but the program ends soon
	select {
	case found := <-answer:
		for i := range found {
			if found[i].Check == "" {
				found[i].Check = c.name
			}
		}
		return found
	case <-ctx.Done():
		return []Finding{{Check: c.name, Level: Fail, Found: fmt.Sprintf("no result within %s", checkLimit), Means: "the kernel or a service hangs"}}
	}
}

// Failed reports whether something required does not work.
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

// asRoot is the advice for checks that need root.
const asRoot = "run as root: sudo penstock doctor"

// home returns the data folder, or its nearest existing parent, because checks must use the data folder's disk.
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

// scratch creates a temporary folder on the data folder's disk.
func scratch(o Options) (dir string, remove func(), err error) {
	dir, err = os.MkdirTemp(home(o.Data), ".penstock-doctor-")
	if err != nil {
		return "", nil, err
	}
	return dir, func() { os.RemoveAll(dir) }, nil
}
