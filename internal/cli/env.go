package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"penstock/internal/bench/proxy"
)

// Env is all that commands know of the process they run in.
type Env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	Exe            string // this program, to start a server from
	Version        string

	// Common and Server add the flags that every command, and that those which start a server, take for its settings;
	// Settings reads them.
	Common   func(*pflag.FlagSet)
	Server   func(*pflag.FlagSet)
	Settings func(*pflag.FlagSet) (Settings, error)

	// Running says which process serves a data folder; 0 when none does.
	Running func(data string) (int, error)
	// Ingress prepares a process of the role for measuring it.
	Ingress proxy.IngressFunc

	output string
}

// Settings are those of the server's that clients on the same machine need too.
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

// Main runs the command that args name and returns the exit code. more are commands of the server itself.
func (e *Env) Main(ctx context.Context, args []string, more []*cobra.Command) int {
	began := false
	root := &cobra.Command{
		Use:   "penstock",
		Short: "Serve AI models as APIs on machines you own, as Azure Container Apps does",
		// Errors are printed here, once, with what to try next.
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if e.output != "text" && e.output != "json" {
				return fmt.Errorf("--output: want text or json, got %q", e.output)
			}
			began = true
			return nil
		},
	}
	e.Common(root.PersistentFlags())
	root.PersistentFlags().StringVarP(&e.output, "output", "o", "text", "text for people, json for programs")
	root.AddCommand(more...)
	root.AddCommand(
		newUpCmd(e), newDownCmd(e), newTopCmd(e), newBackupCmd(e), newRestoreCmd(e),
		newAppCmd(e), newJobCmd(e), newRevisionCmd(e), newReplicaCmd(e), newEnvironmentCmd(e), newImageCmd(e), newBuildCmd(e),
		newDoctorCmd(e), newBenchCmd(e), newVersionCmd(e),
	)
	root.SetArgs(args)
	root.SetIn(e.Stdin)
	root.SetOut(e.Stdout)
	root.SetErr(e.Stderr)

	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	if !began {
		err = UsageError(err)
	}
	return e.fail(cmd, err)
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
		// The message holds them all in one line.
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

// errReported ends a command that has already said what went wrong.
var errReported = errors.New("failed")

// Reported is for commands that have logged their error themselves.
func Reported() error { return errReported }

// errNotFound is wrapped when something that was asked for is not there.
var errNotFound = errors.New("not found")

type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// UsageError marks what was called wrongly: exit code 2 and a pointer to the help.
func UsageError(err error) error { return &usageError{err} }

type hintError struct {
	err error
	try string
}

func (e *hintError) Error() string { return e.err.Error() }
func (e *hintError) Unwrap() error { return e.err }

// hint says what to try next.
func hint(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &hintError{err, fmt.Sprintf(format, args...)}
}

// settings reads the server's settings for a client, which needs but a few of them.
func (e *Env) settings(cmd *cobra.Command) (Settings, error) {
	s, err := e.Settings(cmd.Flags())
	if err != nil {
		return s, UsageError(err)
	}
	return s, nil
}

// Connection is what a client needs to reach a server.
type Connection struct {
	Endpoint  string `json:"endpoint"`
	CA        string `json:"ca"`        // PEM file
	TokenFile string `json:"tokenFile"` // file with the administrator's token
}

// ConnectionFile is where the server leaves a Connection, in its data folder.
const ConnectionFile = "client.json"

// client connects to the server that the variables name, or to the one of the data folder.
func (e *Env) client(cmd *cobra.Command) (*Client, error) {
	if endpoint := e.Getenv("PENSTOCK_ENDPOINT"); endpoint != "" {
		token := e.Getenv("PENSTOCK_TOKEN")
		if token == "" {
			return nil, hint(errors.New("PENSTOCK_ENDPOINT is set but PENSTOCK_TOKEN is not"), "export PENSTOCK_TOKEN=$(cat DATA/token) from the server's data folder")
		}
		return newClient(endpoint, e.Getenv("PENSTOCK_CA"), token)
	}
	s, err := e.settings(cmd)
	if err != nil {
		return nil, err
	}
	return clientOf(s.Data)
}

// clientOf connects to the server of a data folder.
func clientOf(data string) (*Client, error) {
	b, err := os.ReadFile(filepath.Join(data, ConnectionFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, hint(fmt.Errorf("no server runs on data folder %s", data), "penstock up\nor name another data folder with --data or PENSTOCK_DATA\nor a server elsewhere with PENSTOCK_ENDPOINT, PENSTOCK_TOKEN and PENSTOCK_CA")
	}
	if err != nil {
		return nil, fmt.Errorf("how to reach the server: %w", err)
	}
	var c Connection
	if err := json.Unmarshal(b, &c); err != nil {
		return nil, fmt.Errorf("how to reach the server: %s: %w", filepath.Join(data, ConnectionFile), err)
	}
	token, err := os.ReadFile(c.TokenFile)
	if err != nil {
		return nil, hint(fmt.Errorf("administrator's token: %w", err), "run as the user that runs the server")
	}
	return newClient(c.Endpoint, c.CA, strings.TrimSpace(string(token)))
}
