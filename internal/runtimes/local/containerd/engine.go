package containerd

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	"github.com/containerd/containerd/api/services/diff/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	namespacesapi "github.com/containerd/containerd/api/services/namespaces/v1"
	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/cmd/containerd/server"
	srvconfig "github.com/containerd/containerd/v2/cmd/containerd/server/config"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/introspection"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/runtime"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/containerd/v2/plugins/services"
	"github.com/containerd/containerd/v2/version"
	"github.com/containerd/log"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"

	"penstock/internal/oci"
)

// engine is containerd in this process.
type engine struct {
	server *server.Server
	parts
	cancel context.CancelFunc
}

// parts are the parts of containerd that the driver calls.
type parts struct {
	client *client.Client
	// tasks creates tasks from a specification that is stored only in the task's bundle.
	tasks runtime.PlatformRuntime
}

// clientPlugin is the name of our own containerd plugin, which hands out a client.
const clientPlugin = "io.penstock.client.v1"

// clientKey is the context key under which a boot passes the place for its parts to our plugin. A plugin receives
// nothing else from us.
type clientKey struct{}

// registerClient registers the plugin once per process, because containerd's registry is a package variable.
var registerClient = sync.OnceFunc(func() {
	registry.Register(&plugin.Registration{
		Type:     clientPlugin,
		ID:       "client",
		Requires: []plugin.Type{plugins.EventPlugin, plugins.LeasePlugin, plugins.RuntimePluginV2, plugins.ServicePlugin},
		InitFn: func(ic *plugin.InitContext) (any, error) {
			place, ok := ic.Context.Value(clientKey{}).(*parts)
			if !ok {
				return nil, plugin.ErrSkipPlugin // another caller in this process has booted containerd
			}
			tasks, err := ic.GetByID(plugins.RuntimePluginV2, "task")
			if err != nil {
				return nil, err
			}
			c, err := clientIn(ic)
			if err != nil {
				return nil, err
			}
			*place = parts{client: c, tasks: tasks.(runtime.PlatformRuntime)}
			return c, nil
		},
	})
})

// clientIn returns a client that calls this boot's services directly, without a socket.
func clientIn(ic *plugin.InitContext) (*client.Client, error) {
	own, err := ic.GetByType(plugins.ServicePlugin)
	if err != nil {
		return nil, err
	}
	events, err := ic.GetSingle(plugins.EventPlugin)
	if err != nil {
		return nil, err
	}
	leaseManager, err := ic.GetSingle(plugins.LeasePlugin)
	if err != nil {
		return nil, err
	}
	var missing []string
	options := []client.ServicesOpt{
		client.WithEventService(events.(client.EventService)),
		client.WithLeasesService(leaseManager.(leases.Manager)),
	}
	for name, option := range map[string]func(any) client.ServicesOpt{
		services.ContentService:       func(s any) client.ServicesOpt { return client.WithContentStore(s.(content.Store)) },
		services.ImagesService:        func(s any) client.ServicesOpt { return client.WithImageClient(s.(imagesapi.ImagesClient)) },
		services.SnapshotsService:     func(s any) client.ServicesOpt { return client.WithSnapshotters(s.(map[string]snapshots.Snapshotter)) },
		services.ContainersService:    func(s any) client.ServicesOpt { return client.WithContainerClient(s.(containersapi.ContainersClient)) },
		services.TasksService:         func(s any) client.ServicesOpt { return client.WithTaskClient(s.(tasks.TasksClient)) },
		services.DiffService:          func(s any) client.ServicesOpt { return client.WithDiffClient(s.(diff.DiffClient)) },
		services.IntrospectionService: func(s any) client.ServicesOpt { return client.WithIntrospectionService(s.(introspection.Service)) },
		services.NamespacesService:    func(s any) client.ServicesOpt { return client.WithNamespaceClient(s.(namespacesapi.NamespacesClient)) },
	} {
		if s, ok := own[name]; ok {
			options = append(options, option(s))
		} else {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("services %q are not built in", missing)
	}
	return client.New("", client.WithServices(options...), client.WithDefaultNamespace(oci.Namespace))
}

// booting serializes boots, because containerd decodes each plugin's settings into a variable of the plugin's package.
var booting sync.Mutex

// The path of a unix socket can have 108 bytes. A shim's path is the folder, a slash and 64 hex digits.
const maxSocketDir = 106 - 1 - 64

func bootEngine(ctx context.Context, root, state, memory string, logs *log.Entry) (*engine, error) {
	sockets := filepath.Join(state, "s")
	if len(sockets) > maxSocketDir {
		return nil, fmt.Errorf("state folder %s: want at most %d bytes, so that sockets in it can have names, got %d",
			state, maxSocketDir-len("/s"), len(state))
	}
	cfg := &srvconfig.Config{
		Version: version.ConfigVersion,
		Root:    filepath.Join(root, "containerd"),
		State:   filepath.Join(memory, "c"),
		Plugins: map[string]any{
			// There is no such server here, but shims are given this address.
			"io.containerd.server.v1.grpc":  map[string]any{"address": filepath.Join(state, "grpc.sock")},
			"io.containerd.server.v1.ttrpc": map[string]any{"address": filepath.Join(state, "ttrpc.sock")},
			"io.containerd.shim.v1.manager": map[string]any{
				"socket_dir": sockets,
				// Where the shim writes down what a command is run with (go-runc: Exec). The default is /tmp.
				"env": []string{"XDG_RUNTIME_DIR=" + filepath.Join(memory, "x")},
			},
		},
		RequiredPlugins: []string{clientPlugin + ".client", "io.containerd.server.v1.ttrpc", "io.containerd.snapshotter.v1.overlayfs"},
	}
	if err := server.CreateTopLevelDirectories(cfg); err != nil {
		return nil, err
	}
	booting.Lock()
	defer booting.Unlock()
	registerClient()
	var found parts
	// The engine lives until stop, which is longer than the call that opens it.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ctx = context.WithValue(log.WithLogger(ctx, logs), clientKey{}, &found)
	s, err := server.New(ctx, cfg)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("boot containerd: %w", err)
	}
	e := &engine{server: s, parts: found, cancel: cancel}
	if found.client == nil {
		return nil, errors.Join(errors.New("boot containerd: no client"), e.stop())
	}
	if err := s.Start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start containerd: %w", err), e.stop())
	}
	s.Wait()
	return e, nil
}

// stop stops containerd. Shims and containers keep running.
func (e *engine) stop() error {
	e.cancel()
	e.server.Stop()
	if e.client == nil {
		return nil
	}
	return e.client.Close()
}
