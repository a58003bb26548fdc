package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// bareRunc is a bundle for `runc run`. The engine creates a container but never starts it; runc uses its specification, root
// file system and network, with a different cgroup.
type bareRunc struct {
	lab       *lab
	container string
	replica   string
	bundle    string
	address   netip.Addr
}

func (l *lab) bareRunc(ctx context.Context) (*bareRunc, error) {
	s, c := l.replica("bare")
	address, err := l.driver.CreateSandbox(ctx, s)
	if err != nil {
		return nil, err
	}
	if err := l.driver.Create(ctx, c); err != nil {
		return nil, err
	}
	configs, err := filepath.Glob(filepath.Join(l.dir, "s", "m", "c", "io.containerd.runtime.v2.task", "*", "*", "config.json"))
	if err != nil || len(configs) != 1 {
		return nil, fmt.Errorf("want one bundle, got %q", configs)
	}
	b, err := os.ReadFile(configs[0])
	if err != nil {
		return nil, err
	}
	var spec specs.Spec
	if err := json.Unmarshal(b, &spec); err != nil {
		return nil, err
	}
	spec.Linux.CgroupsPath = "/" + l.name + "/runc"
	if b, err = json.Marshal(spec); err != nil {
		return nil, err
	}
	bundle := filepath.Join(l.dir, "bare")
	if err := os.Mkdir(bundle, 0o711); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), b, 0o600); err != nil {
		return nil, err
	}
	return &bareRunc{lab: l, container: c.ID, replica: s.Replica, bundle: bundle, address: address}, nil
}

func (r *bareRunc) command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, r.lab.Runc, append([]string{"--root", filepath.Join(r.lab.dir, "bareroot")}, args...)...)
}

func (r *bareRunc) cycle(ctx context.Context, i int) (time.Duration, error) {
	id := fmt.Sprintf("bare-%d", i)
	run := r.command(ctx, "run", "--bundle", r.bundle, id)
	var out bytes.Buffer
	run.Stdout, run.Stderr = &out, &out
	begin := time.Now()
	if err := run.Start(); err != nil {
		return 0, err
	}
	failed := answers(ctx, netip.AddrPortFrom(r.address, uint16(r.lab.Port)))
	took := time.Since(begin)
	kill, err := r.command(ctx, "kill", id, "KILL").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("runc kill: %w: %s", err, kill)
	}
	run.Wait() // returns an error, because it was killed
	if err := errors.Join(failed, err); err != nil {
		return 0, fmt.Errorf("%w: %s", err, out.String())
	}
	return took, nil
}

func (r *bareRunc) remove(ctx context.Context) error {
	if err := r.lab.driver.Delete(ctx, r.container); err != nil {
		return err
	}
	return r.lab.driver.RemoveSandbox(ctx, r.replica)
}
