// Containerd-shim-runc-v2 is containerd's shim for runc with what Penstock needs beside: a container's output and exit
// outlast the platform, and the shim leaves the platform's cgroup. It has containerd's name because it takes its place.
package main

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/manager"
	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/task"
	containerd "github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/containerd/v2/pkg/shutdown"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"

	"penstock/internal/shim"
)

func main() {
	// Questions about itself (-v, -info) are asked outside a bundle.
	if slices.Contains(os.Args, "-namespace") {
		if err := shim.Settle("."); err != nil {
			// Where it runs matters less than that it runs.
			fmt.Fprintln(os.Stderr, "containerd-shim-runc-v2:", err)
		}
	}
	registry.Register(&plugin.Registration{
		Type:     plugins.TTRPCPlugin,
		ID:       "task",
		Requires: []plugin.Type{plugins.EventPlugin, plugins.InternalPlugin},
		InitFn:   newTasks,
	})
	containerd.RunShim(context.Background(), manager.NewShimManager("io.containerd.runc.v2"))
}

// newTasks makes containerd's service of tasks, with ours around it.
func newTasks(ic *plugin.InitContext) (any, error) {
	publisher, err := ic.GetByID(plugins.EventPlugin, "publisher")
	if err != nil {
		return nil, err
	}
	stop, err := ic.GetByID(plugins.InternalPlugin, "shutdown")
	if err != nil {
		return nil, err
	}
	t := &tasks{}
	t.TTRPCTaskService, err = task.NewTaskService(ic.Context, witness{publisher.(containerd.Publisher), t}, stop.(shutdown.Service))
	if err != nil {
		return nil, err
	}
	return t, nil
}
