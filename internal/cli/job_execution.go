package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"penstock/internal/arm/app"
)

// executionView holds the fields of an execution that commands read.
type executionView struct {
	Name       string `json:"name"`
	Properties struct {
		Status         string    `json:"status"`
		StartTime      time.Time `json:"startTime"`
		EndTime        time.Time `json:"endTime"`
		Reason         string    `json:"reason"`
		Message        string    `json:"message"`
		DetailedStatus struct {
			Replicas []struct {
				Name       string `json:"name"`
				Containers []struct {
					Name   string `json:"name"`
					Code   *int   `json:"code"`
					Status string `json:"status"`
					Info   string `json:"additionalInformation"`
				} `json:"containers"`
			} `json:"replicas"`
		} `json:"detailedStatus"`
	} `json:"properties"`
}

// over reports whether the execution has ended.
func (e *executionView) over() bool { return !e.Properties.EndTime.IsZero() }

// took returns how long the execution ran, or has been running.
func (e *executionView) took() string {
	p := &e.Properties
	if e.over() {
		return p.EndTime.Sub(p.StartTime).Round(time.Millisecond).String()
	}
	return time.Since(p.StartTime).Round(time.Second).String()
}

// readJob turns the YAML of a job into the body of a PUT.
func readJob(env *Env, file string) (name string, body []byte, err error) {
	b, err := readManifest(env, file)
	if err != nil {
		return "", nil, err
	}
	if name, body, err = app.ParseJobYAML(b); err == nil && name == "" {
		err = fmt.Errorf("name: missing; want the name of the job")
	}
	if err != nil {
		return "", nil, fmt.Errorf("manifest %s: %w", file, err)
	}
	return name, body, nil
}

type jobStartOptions struct {
	file string
	wait bool
}

func newJobStartCmd(env *Env, s *scope) *cobra.Command {
	o := &jobStartOptions{}
	cmd := &cobra.Command{
		Use:   "start NAME",
		Short: "Start an execution of a job and print its name",
		Args:  cobra.ExactArgs(1),
		RunE:  func(cmd *cobra.Command, args []string) error { return o.run(cmd, env, s, args[0]) },
	}
	cmd.Flags().StringVarP(&o.file, "file", "f", "", "YAML with containers for this execution that replace those of the job; - reads stdin")
	cmd.Flags().BoolVarP(&o.wait, "wait", "w", false, "wait until it ends, and fail if it fails")
	return cmd
}

func (o *jobStartOptions) run(cmd *cobra.Command, env *Env, s *scope, job string) error {
	var body []byte
	if o.file != "" {
		b, err := readManifest(env, o.file)
		if err != nil {
			return err
		}
		if body, err = app.ParseExecutionYAML(b); err != nil {
			return fmt.Errorf("manifest %s: %w", o.file, err)
		}
	}
	c, err := env.client(cmd)
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	resp, _, err := c.call(ctx, http.MethodPost, s.path("jobs", job, "start"), version(), body)
	if err != nil {
		return err
	}
	var doc json.RawMessage
	err = poll(ctx, func() (bool, error) {
		var again *http.Response
		again, doc, err = c.call(ctx, http.MethodGet, resp.Header.Get("Location"), nil, nil)
		return err == nil && again.StatusCode == http.StatusOK, err
	})
	if err != nil {
		return err
	}
	begun, err := decode[executionView](doc)
	if err != nil {
		return err
	}
	if !o.wait {
		return env.show(doc, func(w io.Writer) { fmt.Fprintln(w, begun.Name) })
	}
	if env.output == "text" {
		fmt.Fprintln(env.Stdout, begun.Name)
	}
	e, doc, err := c.awaitExecution(ctx, s, job, begun.Name)
	if err != nil {
		return err
	}
	if err := env.show(doc, func(io.Writer) {}); err != nil {
		return err
	}
	if e.Properties.Status != "Succeeded" {
		return hint(fmt.Errorf("execution %s: %s: %s", e.Name, e.Properties.Status, cmp.Or(e.Properties.Message, e.Properties.Reason)),
			"penstock job logs %s --execution %s", job, e.Name)
	}
	fmt.Fprintf(env.Stderr, "succeeded after %s\n", e.took())
	return nil
}

// awaitExecution waits until an execution has ended.
func (c *Client) awaitExecution(ctx context.Context, s *scope, job, name string) (e *executionView, doc json.RawMessage, err error) {
	err = poll(ctx, func() (bool, error) {
		if doc, err = c.get(ctx, s.path("jobs", job, "executions", name), version()); err != nil {
			return false, err
		}
		e, err = decode[executionView](doc)
		return err == nil && e.over(), err
	})
	return e, doc, err
}

func newJobStopCmd(env *Env, s *scope) *cobra.Command {
	var execution string
	cmd := &cobra.Command{
		Use:   "stop NAME",
		Short: "Stop all running executions of a job, or one",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			path, what := s.path("jobs", args[0], "stop"), "all executions of job "+args[0]
			if execution != "" {
				path, what = s.path("jobs", args[0], "executions", execution, "stop"), "execution "+execution
			}
			if err := c.change(cmd.Context(), http.MethodPost, path, nil); err != nil {
				return err
			}
			fmt.Fprintf(env.Stderr, "stopped %s\n", what)
			return nil
		},
	}
	cmd.Flags().StringVar(&execution, "execution", "", "stop only this execution")
	return cmd
}

func newExecutionListCmd(env *Env, s *scope) *cobra.Command {
	return &cobra.Command{
		Use:   "list JOB",
		Short: "List the executions of a job, newest first",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			docs, err := c.list(cmd.Context(), s.path("jobs", args[0], "executions"))
			if err != nil {
				return err
			}
			list, err := decodeAll[executionView](docs)
			if err != nil {
				return err
			}
			return env.show(docs, func(w io.Writer) {
				var rows [][]string
				for _, e := range list {
					p := &e.Properties
					message := ""
					if p.Status != "Succeeded" {
						message = p.Message
					}
					rows = append(rows, []string{e.Name, p.Status, age(p.StartTime, time.Now()), e.took(), fmt.Sprint(len(p.DetailedStatus.Replicas)), message})
				}
				table(w, "NAME STATUS AGE TOOK REPLICAS DETAILS", rows)
			})
		},
	}
}

func newExecutionShowCmd(env *Env, s *scope) *cobra.Command {
	return &cobra.Command{
		Use:   "show JOB EXECUTION",
		Short: "Show an execution, with the exit code of every container",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			doc, err := c.get(cmd.Context(), s.path("jobs", args[0], "executions", args[1]), version())
			if err != nil {
				return err
			}
			e, err := decode[executionView](doc)
			if err != nil {
				return err
			}
			return env.show(doc, func(w io.Writer) { printExecution(w, e) })
		},
	}
}

func printExecution(w io.Writer, e *executionView) {
	p := &e.Properties
	fmt.Fprintf(w, "%-16s %s\n%-16s %s\n%-16s %s, took %s\n", "name", e.Name, "status", strings.TrimSpace(p.Status+"  "+p.Message),
		"began", p.StartTime.Local().Format(time.DateTime), e.took())
	var rows [][]string
	for _, r := range p.DetailedStatus.Replicas {
		for _, c := range r.Containers {
			code := ""
			if c.Code != nil {
				code = fmt.Sprint(*c.Code)
			}
			rows = append(rows, []string{r.Name, c.Name, c.Status, code, c.Info})
		}
		if len(r.Containers) == 0 {
			rows = append(rows, []string{r.Name, "", "Waiting", "", ""})
		}
	}
	table(w, "REPLICA CONTAINER STATUS CODE DETAILS", rows)
}
