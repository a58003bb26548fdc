package local

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"penstock/internal/resource"
	"penstock/internal/runtimes"
)

// Exec implements runtimes.Execer.
func (e *Engine) Exec(ctx context.Context, replica, container string, x runtimes.Exec) (code int, err error) {
	driver, ok := e.cfg.Driver.(Execer)
	if !ok {
		return 0, fmt.Errorf("run a command in replica %q: the engine cannot: %w", replica, errors.ErrUnsupported)
	}
	if err := e.wait(ctx); err != nil {
		return 0, err
	}
	e.mu.Lock()
	runs := false
	if k := e.keepers[replica]; k != nil {
		runs = slices.ContainsFunc(slices.Concat(k.view.InitContainers, k.view.Containers), func(c resource.ContainerStatus) bool {
			return c.Name == container && c.Running
		})
	}
	e.mu.Unlock()
	if !runs {
		return 0, fmt.Errorf("replica %q has no container %q that runs: %w", replica, container, resource.ErrNotFound)
	}
	code, err = driver.Exec(ctx, containerID(replica, container), x)
	if errors.Is(err, ErrGone) {
		return 0, fmt.Errorf("container %q of replica %q has ended: %w", container, replica, resource.ErrNotFound)
	}
	if err != nil {
		return 0, fmt.Errorf("run a command in container %q: %w", container, err)
	}
	return code, nil
}

var _ runtimes.Execer = (*Engine)(nil)
