package operate_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"penstock/test/penstocktest"
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
func executed(t *testing.T, m *penstocktest.Machine, name, status string) (e execution) {
	t.Helper()
	penstocktest.Until(t, time.Minute, name+" is "+status, func() bool {
		out, _, code := m.Run(t, "job", "execution", "show", "batch", name, "-o", "json")
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
func pidOf(t *testing.T, m *penstocktest.Machine, execution string) (pid int) {
	t.Helper()
	penstocktest.Until(t, time.Minute, execution+" has a process", func() bool {
		for replica, pids := range m.Processes(t) {
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
	m := penstocktest.Boot(t)
	m.Image(t, "hello")
	m.Must(t, "job", "create", "-f", m.File(t, jobManifest))
	begin := func() string {
		return strings.TrimSpace(m.Must(t, "job", "start", "batch", "-f", m.File(t, serves)))
	}

	t.Run("one runs to its end", func(t *testing.T) {
		began := time.Now()
		name := strings.TrimSpace(m.Must(t, "job", "start", "batch", "--wait"))
		t.Logf("from the start to the end of an execution: %s", time.Since(began).Round(time.Millisecond))
		e := executed(t, m, name, "Succeeded")
		containers := e.Properties.DetailedStatus.Replicas[0].Containers
		if len(containers) != 2 || *containers[0].Code != 0 || *containers[1].Code != 0 {
			t.Errorf("containers: %+v", containers)
		}
		out := m.Must(t, "job", "logs", "batch", "--execution", name)
		for _, want := range []string{"CONTAINER_APP_JOB_NAME=batch", "CONTAINER_APP_JOB_EXECUTION_NAME=" + name, "KEY=from-a-secret"} {
			if !strings.Contains(out, want) {
				t.Errorf("its log has no %s:\n%s", want, out)
			}
		}
		// What it took of the machine is given back.
		penstocktest.Until(t, time.Minute, "no process and no sandbox is left", func() bool {
			sandboxes, err := filepath.Glob(filepath.Join(m.Data, "containerd", "sandboxes", "*"))
			return err == nil && len(sandboxes) == 0 && len(m.Processes(t)) == 0
		})
	})

	t.Run("control is killed meanwhile", func(t *testing.T) {
		goesOn, ends := begin(), begin()
		executed(t, m, goesOn, "Running")
		executed(t, m, ends, "Running")
		before, victim := pidOf(t, m, goesOn), pidOf(t, m, ends)
		control := m.Role(t, "control")
		if err := syscall.Kill(control, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(victim, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		penstocktest.Until(t, time.Minute, "control is new", func() bool {
			pid := m.Role(t, "control")
			return pid != 0 && pid != control
		})
		// Ended while nobody watched, with code 0, and not run again.
		if e := executed(t, m, ends, "Succeeded"); len(e.Properties.DetailedStatus.Replicas) != 1 {
			t.Errorf("want one try, got %+v", e.Properties)
		}
		if after := pidOf(t, m, goesOn); after != before {
			t.Errorf("the replica has process %d, and had %d: it was begun again", after, before)
		}
		m.Must(t, "job", "stop", "batch")
		if e := executed(t, m, goesOn, "Stopped"); len(e.Properties.DetailedStatus.Replicas) != 1 {
			t.Errorf("want one try, got %+v", e.Properties)
		}
		if _, err := os.Stat("/proc/" + strconv.Itoa(before)); err == nil {
			t.Error("its process still runs")
		}
	})

	t.Run("the machine loses its power", func(t *testing.T) {
		name := begin()
		executed(t, m, name, "Running")
		m.CutPower(t)
		m.Status.HTTPPort = 0
		m.Must(t, "up")
		e := executed(t, m, name, "Failed")
		if r := e.Properties.DetailedStatus.Replicas; len(r) != 1 || *r[0].Containers[0].Code != -1 {
			t.Errorf("want one try that ended nobody knows how, got %+v", e.Properties)
		}
		if left := m.Processes(t); len(left) > 0 {
			t.Errorf("processes are left: %v", left)
		}
		m.Must(t, "job", "start", "batch", "--wait")
	})

	m.Must(t, "job", "delete", "batch")
}
