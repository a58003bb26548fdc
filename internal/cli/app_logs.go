package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// logsOptions choose the lines to print.
type logsOptions struct {
	follow   bool
	tail     int
	revision string
	replica  string
	// execution is the name of a job's execution.
	execution string
}

// query returns the query of the stream's URL. Empty filters are left out.
func (o *logsOptions) query() url.Values {
	q := version()
	q.Set("output", "json")
	q.Set("follow", strconv.FormatBool(o.follow))
	q.Set("tailLines", strconv.Itoa(o.tail))
	if o.revision != "" {
		q.Set("revision", o.revision)
	}
	if o.execution != "" {
		q.Set("execution", o.execution)
	}
	if o.replica != "" {
		q.Set("replica", o.replica)
	}
	return q
}

func newAppLogsCmd(env *Env, s *scope) *cobra.Command {
	cmd, o := newStreamCmd(env, s, "containerApps", "logs", "Print the console output of an app's containers", "logstream", "lines", env.printLine)
	o.bindNames(cmd.Flags(), "lines")
	return cmd
}

// bindNames adds the flags that filter a stream by revision and replica.
func (o *logsOptions) bindNames(fs *pflag.FlagSet, what string) {
	fs.StringVar(&o.revision, "revision", "", "only "+what+" of this revision")
	fs.StringVar(&o.replica, "replica", "", "only "+what+" of this replica")
}

func newAppEventsCmd(env *Env, s *scope) *cobra.Command {
	cmd, _ := newStreamCmd(env, s, "containerApps", "events", "Print the system events of an app", "eventstream", "events", env.printEvent)
	return cmd
}

// newStreamCmd returns the command that prints one of the streams of an app or a job, whose type is kind. what is the word
// for the stream's items.
func newStreamCmd(env *Env, s *scope, kind, verb, short, stream, what string, show func(json.RawMessage) error) (*cobra.Command, *logsOptions) {
	o := &logsOptions{}
	cmd := &cobra.Command{
		Use:   verb + " NAME",
		Short: short,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.tail < 0 {
				return UsageError(fmt.Errorf("--tail: want 0 or more, got %d", o.tail))
			}
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			return c.lines(cmd.Context(), s.path(kind, args[0], stream), o.query(), show)
		},
	}
	cmd.Flags().BoolVarP(&o.follow, "follow", "f", false, "keep printing new "+what+" until Ctrl-C")
	cmd.Flags().IntVar(&o.tail, "tail", 100, "start with this many of the newest "+what)
	return cmd, o
}

// printLine prints a line of a log stream.
func (e *Env) printLine(doc json.RawMessage) error {
	if e.output == "json" {
		_, err := fmt.Fprintf(e.Stdout, "%s\n", doc)
		return err
	}
	l, err := decode[lineView](doc)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.Stdout, "%s %s  %s\n", clock(l.TimeStamp), tail(l.Replica), l.Log)
	return err
}

func (e *Env) printEvent(doc json.RawMessage) error {
	if e.output == "json" {
		_, err := fmt.Fprintf(e.Stdout, "%s\n", doc)
		return err
	}
	v, err := decode[eventView](doc)
	if err != nil {
		return err
	}
	about := cmp.Or(v.Revision, v.Execution)
	if v.Replica != "" {
		about = v.Replica
	}
	_, err = fmt.Fprintf(e.Stdout, "%s %-7s %-22s %s  %s\n", clock(v.TimeStamp), v.Type, v.Reason, v.Msg, about)
	return err
}
