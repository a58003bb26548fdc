package e2e_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const jobManifest = `
name: batch
properties:
  configuration:
    triggerType: Manual
    replicaTimeout: 600
    secrets: [{name: key, value: from-a-secret}]
  template:
    volumes: [{name: scratch}]
    initContainers:
      - name: prepare
        image: hello:1
        args: [write, /scratch/ready, "yes"]
        volumeMounts: [{volumeName: scratch, mountPath: /scratch}]
    containers:
      - name: work
        image: hello:1
        args: [env]
        env: [{name: KEY, secretRef: key}]
        volumeMounts: [{volumeName: scratch, mountPath: /scratch}]
`

// serves does not end by itself; SIGTERM ends it with code 0.
const serves = "containers: [{name: work, image: hello:1}]\n"

// execution is what the command line shows of one.
type execution struct {
	Name       string
	Properties struct {
		Status, Reason, Message string
		DetailedStatus          struct {
			Replicas []struct {
				Name       string
				Containers []struct {
					Name, Status, AdditionalInformation string
					Code                                *int
				}
			}
		}
	}
}

// executed waits until an execution has that status.
func (m *machine) executed(t *testing.T, name, status string) (e execution) {
	t.Helper()
	until(t, 30*time.Second, name+" is "+status, func() bool {
		out, _, code := m.run(t, "job", "execution", "show", "batch", name, "-o", "json")
		if code != 0 {
			return false // control is away
		}
		if err := json.Unmarshal([]byte(out), &e); err != nil {
			t.Fatal(err)
		}
		return e.Properties.Status == status
	})
	return e
}

// pidOf is the process of the one replica of an execution.
func (m *machine) pidOf(t *testing.T, execution string) (pid int) {
	t.Helper()
	until(t, 10*time.Second, execution+" has a process", func() bool {
		for replica, pids := range m.processes(t) {
			if strings.HasPrefix(replica, execution+"-") {
				pid, _ = strconv.Atoi(pids)
			}
		}
		return pid != 0
	})
	return pid
}

// Executions in real containers, through the death of control and of the machine.
func TestJobs(t *testing.T) {
	m := bootMachine(t)
	m.image(t, "hello")
	m.must(t, "job", "create", "-f", m.file(t, jobManifest))
	begin := func() string {
		return strings.TrimSpace(m.must(t, "job", "start", "batch", "-f", m.file(t, serves)))
	}

	t.Run("one runs to its end", func(t *testing.T) {
		began := time.Now()
		name := strings.TrimSpace(m.must(t, "job", "start", "batch", "--wait"))
		t.Logf("from the start to the end of an execution: %s", time.Since(began).Round(time.Millisecond))
		e := m.executed(t, name, "Succeeded")
		containers := e.Properties.DetailedStatus.Replicas[0].Containers
		if len(containers) != 2 || *containers[0].Code != 0 || *containers[1].Code != 0 {
			t.Errorf("containers: %+v", containers)
		}
		out := m.must(t, "job", "logs", "batch", "--execution", name)
		for _, want := range []string{"CONTAINER_APP_JOB_NAME=batch", "CONTAINER_APP_JOB_EXECUTION_NAME=" + name, "KEY=from-a-secret"} {
			if !strings.Contains(out, want) {
				t.Errorf("its log has no %s:\n%s", want, out)
			}
		}
		// What it took of the machine is given back.
		until(t, 10*time.Second, "no process and no sandbox is left", func() bool {
			sandboxes, err := filepath.Glob(filepath.Join(m.data, "containerd", "sandboxes", "*"))
			return err == nil && len(sandboxes) == 0 && len(m.processes(t)) == 0
		})
	})

	t.Run("control is killed meanwhile", func(t *testing.T) {
		goesOn, ends := begin(), begin()
		m.executed(t, goesOn, "Running")
		m.executed(t, ends, "Running")
		before, victim := m.pidOf(t, goesOn), m.pidOf(t, ends)
		control := m.role(t, "control")
		if err := syscall.Kill(control, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(victim, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		until(t, 20*time.Second, "control is new", func() bool {
			pid := m.role(t, "control")
			return pid != 0 && pid != control
		})
		// Ended while nobody watched, with code 0, and not run again.
		if e := m.executed(t, ends, "Succeeded"); len(e.Properties.DetailedStatus.Replicas) != 1 {
			t.Errorf("want one try, got %+v", e.Properties)
		}
		if after := m.pidOf(t, goesOn); after != before {
			t.Errorf("the replica has process %d, and had %d: it was begun again", after, before)
		}
		m.must(t, "job", "stop", "batch")
		if e := m.executed(t, goesOn, "Stopped"); len(e.Properties.DetailedStatus.Replicas) != 1 {
			t.Errorf("want one try, got %+v", e.Properties)
		}
		if _, err := os.Stat("/proc/" + strconv.Itoa(before)); err == nil {
			t.Error("its process still runs")
		}
	})

	t.Run("the machine loses its power", func(t *testing.T) {
		name := begin()
		m.executed(t, name, "Running")
		m.cutPower(t)
		m.status.HTTPPort = 0
		m.must(t, "up")
		e := m.executed(t, name, "Failed")
		if r := e.Properties.DetailedStatus.Replicas; len(r) != 1 || *r[0].Containers[0].Code != -1 {
			t.Errorf("want one try that ended nobody knows how, got %+v", e.Properties)
		}
		if left := m.processes(t); len(left) > 0 {
			t.Errorf("processes are left: %v", left)
		}
		m.must(t, "job", "start", "batch", "--wait")
	})

	m.must(t, "job", "delete", "batch")
}
