package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"

	"github.com/spf13/cobra"

	"penstock/internal/appimages"
	"penstock/internal/cli"
	"penstock/internal/network/direct"
	"penstock/internal/oci"
	"penstock/internal/server"
	"penstock/internal/supervisor"
)

const (
	roleIngress = "ingress"
	roleControl = "control"
)

// newRoleCmd returns the hidden command with which the supervisor starts a role.
func newRoleCmd(getenv func(string) string, stderr io.Writer) *cobra.Command {
	var inherit string
	cmd := &cobra.Command{
		Use:       "role NAME",
		Short:     "A role of the server (started by the server itself)",
		Hidden:    true,
		ValidArgs: []string{roleIngress, roleControl},
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			var c roleConfig
			if err := json.Unmarshal([]byte(getenv(roleVariable)), &c); err != nil {
				return fmt.Errorf("%s: %w; roles are started by `penstock server`", roleVariable, err)
			}
			in, err := supervisor.Inherit(inherit)
			if err != nil {
				return err
			}
			log := newLogger(stderr, c.Config).With("role", args[0])
			run := func(ctx context.Context) error { return runIngress(ctx, c, in, log) }
			if args[0] == roleControl {
				run = func(ctx context.Context) error { return runControl(ctx, c, in, log) }
			}
			if err := run(cmd.Context()); err != nil {
				log.Error("role failed", "err", err)
				return cli.Reported()
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&inherit, "inherit", "", "names of the inherited listeners, starting at file descriptor 3")
	return cmd
}

func runIngress(ctx context.Context, c roleConfig, in *supervisor.Inherited, log *slog.Logger) error {
	names := in.Packets[insideNames]
	if names == nil {
		return fmt.Errorf("the supervisor is an older version without the listener %s; restart the server (containers keep running)", insideNames)
	}
	if in.Listeners[insideTCP] == nil && in.Listeners[insideHTTP] != nil {
		log.Warn("the supervisor is an older version: TCP apps do not work until the server is restarted; containers keep running", "listener", insideTCP)
	}
	for _, name := range []string{insideHTTP, insideHTTPS, insideNamesTCP, insideTCP} {
		if ln := in.Listeners[name]; ln != nil { // it is where replicas are answered
			in.Listeners[name] = direct.Listener(ln)
		}
	}
	return server.RunIngress(ctx, server.IngressOptions{
		State:         c.State,
		Requests:      server.RequestsFolder(c.Data),
		HTTP:          []net.Listener{in.Listeners["http"], in.Listeners[insideHTTP]},
		HTTPS:         []net.Listener{in.Listeners["https"], in.Listeners[insideHTTPS]},
		Names:         names,
		NamesTCP:      in.Listeners[insideNamesTCP],
		Ports:         server.NewPorts(filepath.Join(c.State, portsSocket), c.tcpHost()),
		InsideTCP:     in.Listeners[insideTCP],
		ControlSocket: filepath.Join(c.State, linkSocket),
		PublicHTTPS:   c.PublicHTTPS,
		Drain:         c.Drain,
		Log:           log,
		Ready:         in.Ready,
	})
}

func runControl(ctx context.Context, c roleConfig, in *supervisor.Inherited, log *slog.Logger) error {
	// Two control processes at the same time would both write the store and start containers.
	if err := supervisor.Exclusive(ctx, c.State, roleControl); err != nil {
		return err
	}
	return server.RunControl(ctx, server.ControlOptions{
		Version:  version(),
		Instance: c.Instance,
		Data:     c.Data,
		State:    c.State,
		ARM:      in.Listeners["arm"],
		Link:     in.Listeners["link"],
		Public:   server.Public{Domain: c.Domain, HTTP: c.PublicHTTP, HTTPS: c.PublicHTTPS, HTTPHost: c.httpHost(), TCPHost: c.tcpHost()},
		Inside:   c.Inside,
		Engine:   server.EngineOptions{Runtime: c.Runtime, Dir: c.Engines, LinkLocal: c.LinkLocal},
		Images: server.ImageOptions{
			Registries:    appimages.Registries{Insecure: c.RegistryInsecure, Mirrors: c.RegistryMirrors, CA: c.RegistryCA},
			Policy:        oci.Policy{Superseded: c.ImagesSuperseded, Unused: c.ImagesUnused, Limit: c.ImagesLimit},
			UnpackedLimit: c.ImagesUnpacked,
		},
		StayUp:   c.StayUp,
		Capacity: server.CapacityOptions{MemoryReserve: c.MemoryReserve, DiskReserve: c.DiskReserve, Overcommit: c.Overcommit, StandbyBudget: c.StandbyBudget},
		Storages: c.Storages,
		Log:      log,
		Ready:    in.Ready,
		Stop:     in.Stop,
	})
}
