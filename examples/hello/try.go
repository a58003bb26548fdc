package main

import (
	"cmp"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"syscall"
)

// try attempts something that a container must not be able to do, named by ?what=. It responds 200 if that succeeds, and 403
// with the kernel's error if not.
func (s *server) try(w http.ResponseWriter, r *http.Request) {
	if err := attempt(r.FormValue("what"), r.FormValue("path"), optional(r, "pid")); err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	fmt.Fprintln(w, "done")
}

func attempt(what, path string, pid int) error {
	switch what {
	case "mount tmpfs":
		return syscall.Mount("tmpfs", "/tmp", "tmpfs", 0, "")
	case "mount proc":
		return syscall.Mount("proc", "/tmp", "proc", 0, "")
	case "bind":
		return syscall.Mount(path, "/tmp", "", syscall.MS_BIND, "")
	case "remount":
		return syscall.Mount("", path, "", syscall.MS_REMOUNT|syscall.MS_BIND, "")
	case "unmount":
		return syscall.Unmount(path, 0)
	case "mknod": // the machine's first disk
		const vda = 253 << 8
		return syscall.Mknod(cmp.Or(path, "/tmp/disk"), syscall.S_IFBLK|0o600, vda)
	case "hard link": // of a file in its root
		return os.Link("/hello", path)
	case "unshare":
		return locked(func() error { return syscall.Unshare(syscall.CLONE_NEWUSER) })
	case "ptrace":
		return locked(func() error { return syscall.PtraceAttach(pid) })
	case "kill":
		return syscall.Kill(pid, syscall.SIGKILL)
	case "raw socket":
		return socket(syscall.AF_INET, syscall.SOCK_RAW, syscall.IPPROTO_ICMP)
	case "packet socket":
		return socket(syscall.AF_PACKET, syscall.SOCK_RAW, 0)
	case "hostname":
		return syscall.Sethostname([]byte("mine"))
	case "reboot":
		return syscall.Reboot(syscall.LINUX_REBOOT_CMD_CAD_OFF)
	case "read device":
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.Read(make([]byte, 1))
		return err
	default:
		return fmt.Errorf("what: %s is nothing that hello can try", strconv.Quote(what))
	}
}

// locked runs f on a new thread. The thread, with any changes that f made to it, ends afterwards.
func locked(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked, so that the thread ends with the goroutine
		done <- f()
	}()
	return <-done
}

func socket(domain, kind, protocol int) error {
	fd, err := syscall.Socket(domain, kind, protocol)
	if err != nil {
		return err
	}
	return syscall.Close(fd)
}

// threads starts ?n= threads, which wait for ever.
func (s *server) threads(w http.ResponseWriter, r *http.Request) {
	n, ok := number(w, r, "n")
	if !ok {
		return
	}
	started := make(chan struct{})
	for range n {
		go func() {
			runtime.LockOSThread()
			started <- struct{}{}
			select {}
		}()
	}
	for range n {
		<-started
	}
	fmt.Fprintf(w, "started %d threads\n", n)
}
