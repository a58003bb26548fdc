package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

	"penstock/internal/atomicfile"
	"penstock/internal/cli"
	"penstock/internal/server"
	"penstock/internal/supervisor"
)

const (
	// cgroupRoot is where Linux distributions mount cgroups, version 1 and 2.
	cgroupRoot = "/sys/fs/cgroup"
	// readyLimit is how long a new role may take to become ready. Control needs 3 to 5 ms to adopt a running container,
	// so this is enough for thousands.
	readyLimit = time.Minute
	// linkSocket is the socket in the state folder over which the roles talk.
	linkSocket = "link.sock"
	// portsSocket is the socket in the state folder over which the ingress asks the supervisor for ports.
	portsSocket = "ports.sock"
	// roleVariable is the environment variable that passes the settings from the supervisor to a role.
	roleVariable = "PENSTOCK_ROLE"
	// The listeners that replicas reach at ports 80, 443 and 53 of their gateway.
	insideHTTP     = "inside-http"
	insideHTTPS    = "inside-https"
	insideNames    = "inside-names"
	insideNamesTCP = "inside-names-tcp"
	// insideTCP is the listener for the exposed ports of TCP apps.
	insideTCP = "inside-tcp"
)

func newServerCmd(env *cli.Env, c Config) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Run the server (ingress and management API) in the foreground",
		Long: `Run the server until SIGTERM or Ctrl-C. Containers keep running when the server ends, and the next server adopts them.

Every setting can be given as a flag (--log-level), an environment variable (PENSTOCK_LOG_LEVEL) or a line of the file
named by --config (log-level: debug). Flags override variables, which override the file.

SIGHUP upgrades to the program that is now on disk, without losing a request.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(load(&c, cmd.Flags(), env.Getenv), c.Validate()); err != nil {
				return cli.UsageError(err)
			}
			if err := env.MayServe(c.Runtime); err != nil {
				return err
			}
			return serve(cmd.Context(), c, env)
		},
	}
	bindServer(cmd.Flags(), c)
	return cmd
}

// roleConfig is what the supervisor passes to a role. An old supervisor may start a new program, so fields are only added,
// never changed.
type roleConfig struct {
	Config
	Instance    string
	State       string
	PublicHTTP  int
	PublicHTTPS int
	Inside      server.Inside
}

// serve runs the supervisor.
func serve(ctx context.Context, c Config, env *cli.Env) error {
	log := newLogger(env.Stderr, c)
	began := time.Now()
	if err := raiseFileLimit(); err != nil {
		log.Info("the limit on open files stays as it is", "err", err)
	}
	for _, l := range c.exposed() {
		log.Warn("listener can be reached from other machines; make sure that only trusted ones can reach it", "listener", l)
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
		Ports:      &supervisor.Ports{Socket: portsSocket, Host: c.tcpHost(), Setting: "exposedPort or the tag penstock.host-port of the app, or another host with --tcp"},
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

	// Remove the connection file of an earlier server, so that no client uses it before this server is ready.
	if err := os.Remove(filepath.Join(c.Data, cli.ConnectionFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	// Its replicas may be gone and their addresses another's. Until control has said where they are, requests wait.
	forgetRoutes := func() error {
		if err := os.Remove(server.RoutesFile(s.State())); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("routes of the server before: %w", err)
		}
		return nil
	}
	if err := forgetRoutes(); err != nil {
		return err
	}
	defer func() {
		if err := forgetRoutes(); err != nil {
			log.Warn("the next start will try again", "err", err)
		}
	}()
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
			Overlap:   true, DrainLimit: c.Drain + time.Minute, // the role ends by itself after Drain; the extra minute is for one that hangs
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
				default: // an upgrade is already pending
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
			log.Warn("the command line cannot find this server by its data folder", "err", err)
		}
		tell("READY=1")
		log.Info("server is ready", "took", time.Since(began).Round(time.Millisecond), "data", c.Data, "instance", s.Instance(),
			"http", s.Addr("http"), "https", s.Addr("https"), "arm", s.Addr("arm"), "runtime", c.Runtime)
	})
	log.Info("server ended", "after", time.Since(began).Round(time.Second))
	return err
}

// writeClient writes the file that the command line needs to reach this server.
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
	return atomicfile.Write(filepath.Join(c.Data, cli.ConnectionFile), append(b, '\n'), 0o644)
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

// newLogger returns the logger that everything in this process uses.
func newLogger(w io.Writer, c Config) *slog.Logger {
	o := &slog.HandlerOptions{Level: c.LogLevel}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}
