package supervisor

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// process is one child process. Its channels are only closed, never sent on.
type process struct {
	pid     int
	handle  *os.Process
	began   time.Time
	ready   chan struct{} // closed when the process serves
	askStop chan struct{} // closed when the process asks to stop the whole server
	done    chan struct{} // closed when the process has ended; exit says how
	exit    string
}

// hear reads the words of the child until the pipe closes.
func (p *process) hear(words *os.File) {
	defer words.Close()
	lines := bufio.NewScanner(words)
	ready, stop := false, false
	for lines.Scan() {
		switch {
		case lines.Text() == wordReady && !ready:
			ready = true
			close(p.ready)
		case lines.Text() == wordStop && !stop:
			stop = true
			close(p.askStop)
		}
	}
}

// reap waits for the child to end and closes done. It first waits for heard, which is closed at the end of the pipe, so that
// the child's last word is not lost.
func (p *process) reap(heard <-chan struct{}) {
	state, err := p.handle.Wait()
	switch {
	case err != nil:
		p.exit = err.Error()
	default:
		p.exit = state.String()
	}
	select {
	case <-heard:
	case <-time.After(time.Second): // a grandchild that got the pipe must not hold up the restart
	}
	close(p.done)
}

func (p *process) signal(sig syscall.Signal) error {
	if err := p.handle.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %d to process %d: %w", sig, p.pid, err)
	}
	return nil
}
