package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"penstock/internal/cli"
	"penstock/internal/server"
	"penstock/internal/supervisor"
)

const (
	// cgroupRoot is where Linux distributions mount cgroups, both versions.
	cgroupRoot = "/sys/fs/cgroup"
	// readyLimit bounds a hand-over: control adopts 3-5 ms a live container, so this covers thousands.
	readyLimit = time.Minute
	// linkSocket is where the roles meet, in the state folder.
	linkSocket = "link.sock"
	// portsSocket is where the ingress asks the supervisor for ports, likewise.
	portsSocket = "ports.sock"
	// roleVariable carries the settings from the supervisor to a role.
	roleVariable = "PENSTOCK_ROLE"
	// Listeners that replicas reach by ports 80, 443 and 53 of their gateway.
	insideHTTP     = "inside-http"
	insideHTTPS    = "inside-https"
	insideNames    = "inside-names"
	insideNamesTCP = "inside-names-tcp"
	// insideTCP is the one that the exposed ports of TCP apps lead to.
	insideTCP = "inside-tcp"
)

func newServerCmd(env *cli.Env, c Config) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Serve: run the ingress and the management API in the foreground",
		Long: `Serve until SIGTERM or Ctrl-C. Containers run on when the server ends, and are adopted by the next one.

Every setting can be a flag (--log-level), a variable (PENSTOCK_LOG_LEVEL) or a line of the file named by --config
(log-level: debug). Flags win over variables, those over the file.

SIGHUP hands over to the program as it is on disk now, without losing a request.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(load(&c, cmd.Flags(), env.Getenv), c.Validate()); err != nil {
				return cli.UsageError(err)
			}
			return serve(cmd.Context(), c, env)
		},
	}
	bindServer(cmd.Flags(), c)
	return cmd
}

// roleConfig is what a role is told. An old supervisor may start a new program, so fields are added, never changed.
type roleConfig struct {
	Config
	Instance    string
	State       string
	PublicHTTP  int
	PublicHTTPS int
	Inside      server.Inside
}

// serve is the supervisor.
func serve(ctx context.Context, c Config, env *cli.Env) error {
	log := newLogger(env.Stderr, c)
	began := time.Now()
	for _, l := range c.exposed() {
		log.Warn("listener can be reached from other machines; make sure that only those you trust can get there", "listener", l)
	}
	s, err := supervisor.New(supervisor.Options{
		Data: c.Data,
		Run:  c.Run,
		Listeners: []supervisor.Listener{
			{Name: "http", Network: "tcp", Address: c.HTTP, Setting: "--http"},
			{Name: "https", Network: "tcp", Address: c.HTTPS, Setting: "--https"},
			{Name: "arm", Network: "tcp", Address: c.ARM, Setting: "--arm"},
			{Name: "link", Network: "unix", Address: linkSocket},
			{Name: insideHTTP, Network: "tcp", Address: ":0", Private: true},
			{Name: insideHTTPS, Network: "tcp", Address: ":0", Private: true},
			{Name: insideNames, Network: "udp", Address: ":0", Private: true},
			{Name: insideNamesTCP, Network: "tcp", Address: ":0", Private: true},
			{Name: insideTCP, Network: "tcp", Address: ":0", Private: true},
		},
		Ports:      &supervisor.Ports{Socket: portsSocket, Host: c.tcpHost(), Setting: "exposedPort of the app, or another host with --tcp"},
		CgroupRoot: cgroupRoot,
		Exe:        env.Exe,
		ReadyLimit: readyLimit,
		StopLimit:  c.StopLimit,
		Log:        log,
	})
	if err != nil {
		return err
	}
	defer s.Close()

	// Until the server is ready, nobody should be led to what an earlier one left.
	if err := os.Remove(filepath.Join(c.Data, cli.ConnectionFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	told, err := json.Marshal(roleConfig{
		Config:      c,
		Instance:    s.Instance(),
		State:       s.State(),
		PublicHTTP:  portOf(s.Addr("http")),
		PublicHTTPS: portOf(s.Addr("https")),
		Inside: server.Inside{
			Host:     supervisor.Private(s.Instance()),
			HTTP:     uint16(portOf(s.Addr(insideHTTP))),
			HTTPS:    uint16(portOf(s.Addr(insideHTTPS))),
			Names:    uint16(portOf(s.Addr(insideNames))),
			NamesTCP: uint16(portOf(s.Addr(insideNamesTCP))),
			TCP:      uint16(portOf(s.Addr(insideTCP))),
		},
	})
	if err != nil {
		return err
	}
	variables := []string{roleVariable + "=" + string(told)}
	roles := []supervisor.Role{
		{
			Name: roleIngress, Args: []string{"role", roleIngress}, Env: variables,
			Listeners: []string{"http", "https", insideHTTP, insideHTTPS, insideNames, insideNamesTCP, insideTCP},
			Overlap:   true, DrainLimit: c.Drain + time.Minute, // the role ends by itself at Drain; the rest is for a hung one
		},
		{Name: roleControl, Args: []string{"role", roleControl}, Env: variables, Listeners: []string{"arm", "link"}},
	}

	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	upgrade := make(chan struct{}, 1)
	stopped := make(chan struct{})
	go func() {
		for {
			select {
			case <-hangup:
				select {
				case upgrade <- struct{}{}:
				default: // one is waiting already
				}
			case <-stopped:
				return
			}
		}
	}()
	defer close(stopped)

	manager := env.Getenv("NOTIFY_SOCKET")
	tell := func(state string) {
		if err := notify(manager, state); err != nil {
			log.Warn("the service manager may think that this server hangs and end it", "err", err)
		}
	}
	untold := context.AfterFunc(ctx, func() { tell("STOPPING=1") })
	defer untold()
	err = s.Run(ctx, roles, upgrade, func() {
		if err := writeClient(c, s.Addr("arm")); err != nil {
			log.Warn("the command line will not find this server by its data folder", "err", err)
		}
		tell("READY=1")
		log.Info("server is ready", "took", time.Since(began).Round(time.Millisecond), "data", c.Data, "instance", s.Instance(),
			"http", s.Addr("http"), "https", s.Addr("https"), "arm", s.Addr("arm"), "runtime", c.Runtime)
	})
	log.Info("server ended", "after", time.Since(began).Round(time.Second))
	return err
}

// writeClient leaves what the command line needs to reach this server.
func writeClient(c Config, arm net.Addr) error {
	host, _, err := net.SplitHostPort(c.ARM)
	if err != nil {
		return err
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	b, err := json.MarshalIndent(cli.Connection{
		Endpoint:  "https://" + net.JoinHostPort(host, strconv.Itoa(portOf(arm))),
		CA:        filepath.Join(c.Data, "pki", "ca.pem"),
		TokenFile: filepath.Join(c.Data, "token"),
	}, "", "  ")
	if err != nil {
		return err
	}
	return supervisor.WriteFile(filepath.Join(c.Data, cli.ConnectionFile), append(b, '\n'), 0o644)
}

func portOf(a net.Addr) int {
	_, service, err := net.SplitHostPort(a.String())
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(service)
	if err != nil {
		return 0
	}
	return n
}

// newLogger is the one logger of a process; everything else is given it.
func newLogger(w io.Writer, c Config) *slog.Logger {
	o := &slog.HandlerOptions{Level: c.LogLevel}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}
