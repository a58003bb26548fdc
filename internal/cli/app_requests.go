package cli

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"
)

func newAppRequestsCmd(env *Env, s *scope) *cobra.Command {
	cmd, o := newStreamCmd(env, s, "containerApps", "requests", "Print the requests that an app received, with status, duration and replica", "requeststream", "requests", env.printRequest)
	o.bindNames(cmd.Flags(), "requests")
	cmd.Long = `Print an app's requests as recorded by the ingress, within a second of their end: time, duration, replica, and Envoy's flags
for what went wrong (UH no replica, UO waiting room full, UF connection failed, UC connection closed by the replica, UT and SI
timeouts, DC client disconnected). Connections of TCP apps are included. With -o json the columns are those of Azure's table
ContainerAppHTTPLogs.`
	cmd.Example = `  penstock app requests chat -f
  penstock app requests chat --tail 1000 -o json`
	return cmd
}

// requestView is a line of an app's request stream.
type requestView struct {
	TimeGenerated string
	Method, Path  string
	Authority     string
	Protocol      string
	StatusCode    int
	ResponseFlags string
	BytesReceived int64
	BytesSent     int64
	ReplicaName   string
	HeldMs        float64
	FirstByteMs   float64
	DurationMs    float64
}

func (e *Env) printRequest(doc json.RawMessage) error {
	if e.output == "json" {
		_, err := fmt.Fprintf(e.Stdout, "%s\n", doc)
		return err
	}
	v, err := decode[requestView](doc)
	if err != nil {
		return err
	}
	notes := ""
	if v.HeldMs > 0 {
		notes += fmt.Sprintf("  held %.1f ms", v.HeldMs)
	}
	if v.ResponseFlags != "" {
		notes += "  " + v.ResponseFlags
	}
	if v.Method == "" && v.Path == "" { // a connection: where to is all that it says
		v.Method, v.Path = v.Protocol, v.Authority
	}
	_, err = fmt.Fprintf(e.Stdout, "%s %s  %3d %9.1f ms  %9s  %s %s%s\n",
		clock(v.TimeGenerated), tail(v.ReplicaName), v.StatusCode, v.DurationMs, bytesText(v.BytesSent), v.Method, v.Path, notes)
	return err
}
