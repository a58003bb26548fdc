package build

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

const (
	// toolFirstID is the first host user ID for the root and users of a tool. Nothing else uses these IDs: useradd(8) and
	// newuidmap(1) assign none above 600,100,000, and the ranges of replicas are far below.
	toolFirstID = 0x7000_0000
	toolIDs     = 1 << 16
)

// isolate makes a command run as root in new namespaces, where it can write only to dir.
func isolate(cmd *exec.Cmd, dir string) error {
	if os.Geteuid() != 0 {
		return errors.New("installing packages needs root to create a user namespace; run penstock build as root")
	}
	if err := os.Chown(dir, toolFirstID, toolFirstID); err != nil {
		return fmt.Errorf("own %s: %w", dir, err)
	}
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: toolFirstID, Size: toolIDs}}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true,
		Credential: &syscall.Credential{}, // root inside the namespace
		Pdeathsig:  syscall.SIGKILL,       // it is process 1 of its namespace, so all others end with it
	}
	return nil
}
