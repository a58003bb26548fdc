package main

import (
	"context"
	"errors"
	"path/filepath"
	"sync"

	eventsapi "github.com/containerd/containerd/api/events"
	api "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/v2/core/events"
	containerd "github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/log"
	"github.com/containerd/ttrpc"

	"penstock/internal/shim"
)

// tasks is containerd's service for the one container of this shim, which holds on to its output.
type tasks struct {
	api.TTRPCTaskService

	mu     sync.Mutex
	output *shim.Output
	dir    string // where its pipes are
}

// RegisterTTRPC is how the shim's server finds the service.
func (t *tasks) RegisterTTRPC(s *ttrpc.Server) error {
	api.RegisterTTRPCTaskService(s, t)
	return nil
}

// Create holds the output before there is any.
func (t *tasks) Create(ctx context.Context, r *api.CreateTaskRequest) (*api.CreateTaskResponse, error) {
	output, err := shim.Hold(r.Stdout, r.Stderr)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	t.output = output
	if r.Stdout != "" {
		t.dir = filepath.Dir(r.Stdout)
	}
	t.mu.Unlock()
	answer, err := t.TTRPCTaskService.Create(ctx, r)
	if err != nil {
		err = errors.Join(err, output.Close())
	}
	return answer, err
}

// Delete lets the output go, so that who reads it sees its end.
func (t *tasks) Delete(ctx context.Context, r *api.DeleteRequest) (*api.DeleteResponse, error) {
	answer, err := t.TTRPCTaskService.Delete(ctx, r)
	if err != nil || r.ExecID != "" {
		return answer, err
	}
	t.mu.Lock()
	output := t.output
	t.mu.Unlock()
	if output != nil {
		err = output.Close()
	}
	return answer, err
}

// witness writes down how the container ended before anybody is told.
type witness struct {
	containerd.Publisher
	tasks *tasks
}

func (w witness) Publish(ctx context.Context, topic string, event events.Event) error {
	if e, ok := event.(*eventsapi.TaskExit); ok && e.ID == e.ContainerID {
		w.tasks.mu.Lock()
		dir := w.tasks.dir
		w.tasks.mu.Unlock()
		if dir != "" {
			if err := shim.KeepExit(dir, shim.Exit{PID: int(e.Pid), Code: int(e.ExitStatus), At: e.ExitedAt.AsTime()}); err != nil {
				log.G(ctx).WithError(err).Warn("an exit was not written down")
			}
		}
	}
	return w.Publisher.Publish(ctx, topic, event)
}
