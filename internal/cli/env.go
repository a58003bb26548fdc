package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"penstock/internal/backup"
	"penstock/internal/bench/proxy"
)

// Env is everything that commands know about their process.
type Env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	Exe            string // path of this program, used to start a server
	UID            int    // of the user who runs it
	Version        string

	// Common adds the settings flags that every command has. Server adds those of commands that start a server. Settings
	// reads the values.
	Common   func(*pflag.FlagSet)
	Server   func(*pflag.FlagSet)
	Settings func(*pflag.FlagSet) (Settings, error)

	// Keep stores the flags of a start in the data folder.
	Keep func(*pflag.FlagSet) error

	// Running returns the pid of the server on a data folder, or 0 if there is none.
	Running func(data string) (int, error)
	// Hosts is the file for `penstock up --hosts`; "" means /etc/hosts. Resolves says whether programs on this machine find
	// the address of a host; nil means that the machine's resolver is asked. Tests set them.
	Hosts    string
	Resolves func(host string) bool

	// Ingress prepares an ingress process for a benchmark.
	Ingress proxy.IngressFunc

	usual  string // data folder of the server that a command without settings reaches
	output string
	began  bool // the command line was valid and the command has started
}

// Settings are the server settings that clients on the same machine also need.
type Settings struct {
	Data, Run, Engines string
	HTTP, HTTPS, ARM   string
	Domain             string
	Runtime            string
	LogFormat          string
}

// Exit codes, which are part of the API.
const (
	exitDone     = 0
	exitFailed   = 1
	exitUsage    = 2
	exitNotFound = 3
)

// Root returns the tree of all commands. more holds the commands of the server itself.
func (e *Env) Root(more []*cobra.Command) *cobra.Command {
	root := &cobra.Command{
		Use:   "penstock",
		Short: "Serve AI models as APIs on machines you own, as Azure Container Apps does",
		// fail prints errors, once, with what to try next.
		Version:       e.Version, // --version prints what penstock version does
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if e.output != "text" && e.output != "json" {
				return fmt.Errorf("--output: want text or json, got %q", e.output)
			}
			e.began = true
			return nil
		},
	}
	root.SetVersionTemplate("{{.Version}}\n")
	e.Common(root.PersistentFlags())
	if f := root.PersistentFlags().Lookup("data"); f != nil {
		e.usual = f.DefValue
	}
	root.PersistentFlags().StringVarP(&e.output, "output", "o", "text", "output format: text or json")
	root.AddCommand(more...)
	root.AddCommand(
		newUpCmd(e), newInitCmd(e), newDownCmd(e), newTopCmd(e), newBackupCmd(e), newRestoreCmd(e),
		newAppCmd(e), newJobCmd(e), newRevisionCmd(e), newReplicaCmd(e), newEnvironmentCmd(e), newImageCmd(e), newBuildCmd(e),
		newDoctorCmd(e), newCACmd(e), newAzEnvCmd(e), newBenchCmd(e), newVersionCmd(e),
	)
	e.completeNames(root)
	root.SetIn(e.Stdin)
	root.SetOut(e.Stdout)
	root.SetErr(e.Stderr)
	return root
}

// Main runs the command given by args and returns the exit code. more holds the commands of the server itself.
func (e *Env) Main(ctx context.Context, args []string, more []*cobra.Command) int {
	out := &stdout{Writer: e.Stdout}
	e.Stdout = out
	root := e.Root(more)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if out.err != nil && (err == nil || errors.Is(err, out.err)) {
		fmt.Fprintln(e.Stderr, "penstock: standard output:", out.err)
		return exitFailed
	}
	if err == nil {
		return exitDone
	}
	if !e.began {
		err = UsageError(err)
	}
	if unknown := unknownCommand(root, args); unknown != nil {
		err = unknown
	}
	return e.fail(cmd, err)
}

// stdout remembers the first write that failed, since most commands print without looking.
type stdout struct {
	io.Writer
	err error
}

func (s *stdout) Write(p []byte) (int, error) {
	n, err := s.Writer.Write(p)
	if err != nil && s.err == nil {
		s.err = err
	}
	return n, err
}

// fail prints an error and returns its exit code.
func (e *Env) fail(cmd *cobra.Command, err error) int {
	code, try := exitFailed, ""
	if h, ok := errors.AsType[*hintError](err); ok {
		try = h.try
	}
	api, isAPI := errors.AsType[*APIError](err)
	_, isUsage := errors.AsType[*usageError](err)
	if command, ok := errors.AsType[*exitError](err); ok {
		return command.code
	}
	switch {
	case errors.Is(err, errReported):
		return exitFailed
	case isUsage:
		code, try = exitUsage, strings.TrimSpace(try+"\n"+cmd.CommandPath()+" --help")
	case isAPI && api.Status == 404, errors.Is(err, errNotFound):
		code = exitNotFound
	case isAPI && api.Status == 401 && try == "":
		try = "check PENSTOCK_TOKEN, or the token file in the server's data folder"
	}
	if isAPI && len(api.Details) > 1 {
		// The message has all faults in one line; print one line for each instead.
		fmt.Fprintf(e.Stderr, "penstock: %d faults (%s):\n", len(api.Details), api.Code)
		for _, d := range api.Details {
			fmt.Fprintln(e.Stderr, "  "+d.String())
		}
	} else {
		fmt.Fprintln(e.Stderr, "penstock:", err)
	}
	if try != "" {
		fmt.Fprintln(e.Stderr, "try:", strings.ReplaceAll(try, "\n", "\n     "))
	}
	return code
}

// errReported ends a command that has already printed its error.
var errReported = errors.New("failed")

// Reported returns the error of a command that has already logged what failed.
func Reported() error { return errReported }

// errNotFound is wrapped by errors about something that does not exist.
var errNotFound = errors.New("not found")

type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// UsageError marks an error as wrong usage: the exit code is 2, and the message points to the help.
func UsageError(err error) error { return &usageError{err} }

type hintError struct {
	err error
	try string
}

func (e *hintError) Error() string { return e.err.Error() }
func (e *hintError) Unwrap() error { return e.err }

// hint adds to an error what the user can try next.
func hint(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &hintError{err, fmt.Sprintf(format, args...)}
}

// settings reads the few server settings that a client needs.
func (e *Env) settings(cmd *cobra.Command) (Settings, error) {
	s, err := e.Settings(cmd.Flags())
	if err != nil {
		return s, UsageError(err)
	}
	return s, nil
}

// Connection holds what a client needs to reach a server.
type Connection struct {
	Endpoint  string `json:"endpoint"`
	CA        string `json:"ca"`        // PEM file
	TokenFile string `json:"tokenFile"` // file with the administrator's token
}

// SettingsFile is the name of the file in the data folder with the settings that a server there has unless others are given.
const SettingsFile = backup.SettingsFile

// ConnectionFile is the name of the file in the data folder in which the server writes its Connection.
const ConnectionFile = "client.json"

// connection returns how to reach the server given by the environment variables, or else the data folder's server.
func (e *Env) connection(cmd *cobra.Command) (Connection, error) {
	if endpoint := e.Getenv("PENSTOCK_ENDPOINT"); endpoint != "" {
		return Connection{Endpoint: endpoint, CA: e.Getenv("PENSTOCK_CA")}, nil
	}
	s, err := e.settings(cmd)
	if err != nil {
		return Connection{}, err
	}
	return connectionOf(s.Data)
}

// client returns a client of the server given by the environment variables, or else of the data folder's server.
func (e *Env) client(cmd *cobra.Command) (*Client, error) {
	if endpoint := e.Getenv("PENSTOCK_ENDPOINT"); endpoint != "" {
		token := e.Getenv("PENSTOCK_TOKEN")
		if token == "" {
			return nil, hint(errors.New("PENSTOCK_ENDPOINT is set but PENSTOCK_TOKEN is not"), "export PENSTOCK_TOKEN=$(cat DATA/token) from the server's data folder")
		}
		c, err := newClient(endpoint, e.Getenv("PENSTOCK_CA"), token)
		if err == nil {
			c.tell = e.teller("at " + c.endpoint.Host)
		}
		return c, err
	}
	s, err := e.settings(cmd)
	if err != nil {
		return nil, err
	}
	return e.clientOf(s.Data)
}

// asServersUser is the hint for a file that only the server's user may read.
const asServersUser = "run this command as the user who runs the server"

// running returns the pid of the server on a data folder, or 0 if there is none.
func (e *Env) running(data string) (int, error) {
	pid, err := e.Running(data)
	if errors.Is(err, fs.ErrPermission) {
		return 0, hint(fmt.Errorf("data folder: %w", err), asServersUser)
	}
	if err != nil {
		return 0, fmt.Errorf("data folder: %w", err)
	}
	return pid, nil
}

// clientOf returns a client of a data folder's server. Before its first change it says which server that is, unless it is the
// one that a command without settings reaches.
func (e *Env) clientOf(data string) (*Client, error) {
	c, err := clientOf(data)
	if err == nil && data != e.usual {
		c.tell = e.teller("of data folder " + data)
	}
	return c, err
}

// teller returns a function that prints which server is changed, when it is first called.
func (e *Env) teller(which string) func() {
	return sync.OnceFunc(func() { fmt.Fprintf(e.Stderr, "on the server %s\n", which) })
}

// clientOf returns a client of a data folder's server.
func clientOf(data string) (*Client, error) {
	c, err := connectionOf(data)
	if err != nil {
		return nil, err
	}
	token, err := os.ReadFile(c.TokenFile)
	if err != nil {
		return nil, hint(fmt.Errorf("administrator's token: %w", err), asServersUser)
	}
	return newClient(c.Endpoint, c.CA, strings.TrimSpace(string(token)))
}

// connectionOf returns how to reach a data folder's server.
func connectionOf(data string) (c Connection, err error) {
	b, err := os.ReadFile(filepath.Join(data, ConnectionFile))
	if errors.Is(err, os.ErrNotExist) {
		return c, hint(fmt.Errorf("no server runs on data folder %s", data), "penstock up\nor choose another data folder with --data or PENSTOCK_DATA\nor a remote server with PENSTOCK_ENDPOINT, PENSTOCK_TOKEN and PENSTOCK_CA")
	}
	if err != nil {
		return c, fmt.Errorf("read connection file: %w", err)
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return c, fmt.Errorf("read connection file %s: %w", filepath.Join(data, ConnectionFile), err)
	}
	return c, nil
}
