package cli

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"penstock/internal/doctor"
)

func newDoctorCmd(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check whether this machine can run a server, and how to fix what it lacks",
		Long:  "Check everything that a server with these settings needs. Nothing is changed. The exit code is 1 if something required does not work.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := env.settings(cmd)
			if err != nil {
				return err
			}
			running, err := env.running(s.Data)
			if err != nil {
				return err
			}
			found := doctor.Run(cmd.Context(), doctor.Options{
				Data:    s.Data,
				Engines: s.Engines,
				Runtime: s.Runtime,
				Domain:  s.Domain,
				Running: running,
				Listeners: []doctor.Listener{
					{Name: "http", Address: s.HTTP, Setting: "--http"},
					{Name: "https", Address: s.HTTPS, Setting: "--https"},
					{Name: "arm", Address: s.ARM, Setting: "--arm"},
				},
			})
			if err := env.show(found, func(w io.Writer) { printFindings(w, found) }); err != nil {
				return err
			}
			if doctor.Failed(found) {
				return errors.New("something that the server needs does not work on this machine")
			}
			return nil
		},
	}
	env.Server(cmd.Flags())
	return cmd
}

func printFindings(w io.Writer, found []doctor.Finding) {
	for _, f := range found {
		fmt.Fprintf(w, "%-4s  %-18s  %s\n", f.Level, f.Check, f.Found)
		if f.Means != "" {
			fmt.Fprintf(w, "%26s%s\n", "", f.Means)
		}
		if f.Mend != "" {
			fmt.Fprintf(w, "%26smend: %s\n", "", f.Mend)
		}
	}
}
