// Command penstock serves AI models as APIs on machines you own. It is both the server and its command-line client.
package main

import (
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"penstock/internal/cli"
	"penstock/internal/supervisor"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal stops the program gracefully, the second at once.
	context.AfterFunc(ctx, stop)
	code := run(ctx, os.Args[1:], os.Getenv, os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the whole program; it returns the exit code.
func run(ctx context.Context, args []string, getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) int {
	env, more := commandLine(getenv, stdin, stdout, stderr)
	return env.Main(ctx, args, more)
}

// commandLine returns the Env that all commands share, and the commands of the server itself.
func commandLine(getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) (env *cli.Env, more []*cobra.Command) {
	exe, err := os.Executable()
	if err != nil {
		exe = os.Args[0]
	}
	config := defaults(os.Geteuid() == 0, exe)
	env = &cli.Env{
		Stdin:   stdin,
		Stdout:  stdout,
		Stderr:  stderr,
		Getenv:  getenv,
		Exe:     exe,
		UID:     os.Geteuid(),
		Version: version(),
		Running: supervisor.Running,
		Ingress: func(ctx context.Context, dir string, ln *net.TCPListener) (*exec.Cmd, io.ReadCloser, func(), error) {
			return ingressAlone(ctx, exe, config, dir, ln)
		},
		Common: func(fs *pflag.FlagSet) { bindCommon(fs, config) },
		Server: func(fs *pflag.FlagSet) { bindServer(fs, config) },
		Settings: func(fs *pflag.FlagSet) (cli.Settings, error) {
			c := config
			err := load(&c, fs, getenv)
			return cli.Settings{
				Data: c.Data, Run: c.Run, Engines: c.Engines, HTTP: c.HTTP, HTTPS: c.HTTPS, ARM: c.ARM,
				Domain: c.Domain, Runtime: c.Runtime, LogFormat: c.LogFormat,
			}, err
		},
	}
	env.Keep = func(fs *pflag.FlagSet) error {
		c := config
		if err := load(&c, fs, getenv); err != nil {
			return err
		}
		return keepFlags(&c, fs)
	}
	return env, []*cobra.Command{newServerCmd(env, config), newRoleCmd(getenv, stderr)}
}

// version returns the tag or commit that the program was built from, as recorded by the Go toolchain.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	if v == "" || v == "(devel)" {
		v = "devel"
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v += "-" + s.Value[:min(12, len(s.Value))]
			}
		}
	}
	return v + " " + info.GoVersion
}
