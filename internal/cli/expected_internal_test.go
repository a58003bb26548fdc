package cli

import (
	"io"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func tree() *cobra.Command {
	nothing := func(*pflag.FlagSet) {}
	return (&Env{Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: io.Discard, Common: nothing, Server: nothing}).Root(nil)
}

// Every command that a hint names exists and takes the arguments that the hint shows, and no hint is for a command that exists.
func TestHintsNameCommands(t *testing.T) {
	for word, meant := range expected {
		if cmd, rest, err := tree().Find(strings.Fields(word)); err == nil && len(rest) == 0 {
			t.Errorf("%s: %s exists", word, cmd.CommandPath())
		}
		for _, command := range meant {
			cmd, rest, err := tree().Find(strings.Fields(command)[1:])
			if err != nil || cmd.CommandPath() == "penstock" {
				t.Errorf("%s: %s: no such command: %v", word, command, err)
				continue
			}
			if err := cmd.ParseFlags(rest); err != nil {
				t.Errorf("%s: %s: %v", word, command, err)
			}
			if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil {
				t.Errorf("%s: %s: %v", word, command, err)
			}
		}
	}
}

// A command whose usage line names an app, a job or the like completes the names of these.
func TestNamesAreCompletedWhereverTheyAreArguments(t *testing.T) {
	var walk func(*cobra.Command)
	found := 0
	walk = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
		if words := strings.Fields(cmd.Use); len(words) > 1 && listed[words[1]] != nil {
			found++
			if cmd.ValidArgsFunction == nil {
				t.Errorf("%s: %s is not completed", cmd.CommandPath(), words[1])
			}
		}
	}
	walk(tree())
	if found < 20 {
		t.Errorf("got %d commands with such an argument, want at least 20", found)
	}
}
