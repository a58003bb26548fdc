package build

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

const (
	// toolFirstID begins the ids that a tool's root and users have on the machine, which nobody else has: useradd(8)
	// and newuidmap(1) give none above 600,100,000, and replicas' ranges begin far below.
	toolFirstID = 0x7000_0000
	toolIDs     = 1 << 16
)

// isolate lets a command run as root of namespaces of its own, with dir as its only folder to write in.
func isolate(cmd *exec.Cmd, dir string) error {
	if os.Geteuid() != 0 {
		return errors.New("packages are installed as root, in a user namespace; run penstock build as root")
	}
	if err := os.Chown(dir, toolFirstID, toolFirstID); err != nil {
		return fmt.Errorf("own %s: %w", dir, err)
	}
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: toolFirstID, Size: toolIDs}}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true,
		Credential: &syscall.Credential{}, // root there
		Pdeathsig:  syscall.SIGKILL,       // it is process 1 of its namespace: all others end with it
	}
	return nil
}
