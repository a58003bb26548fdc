package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// expected has the commands that do what people look for under names that other tools use. NAME becomes the argument that was
// given.
var expected = map[string][]string{
	"apps":         {"penstock app list"},
	"containerapp": {"penstock app list"},
	"get":          {"penstock app list"},
	"list":         {"penstock app list"},
	"ls":           {"penstock app list"},
	"ps":           {"penstock app list", "penstock top"},
	"status":       {"penstock app list", "penstock top", "penstock doctor"},

	"apply":  {"penstock up -f app.yaml"},
	"create": {"penstock up -f app.yaml"},
	"deploy": {"penstock up -f app.yaml", "penstock up DIR"},
	"run":    {"penstock up --image IMAGE", "penstock up DIR"},
	"update": {"penstock up -f app.yaml"},

	"attach":   {"penstock app exec NAME -- sh"},
	"delete":   {"penstock app delete NAME"},
	"describe": {"penstock app show NAME"},
	"destroy":  {"penstock app delete NAME"},
	"events":   {"penstock app events NAME"},
	"exec":     {"penstock app exec NAME -- sh"},
	"explain":  {"penstock app explain NAME"},
	"inspect":  {"penstock app show NAME", "penstock image inspect NAME"},
	"kill":     {"penstock app stop NAME"},
	"log":      {"penstock app logs NAME"},
	"logs":     {"penstock app logs NAME", "penstock job logs NAME"},
	"remove":   {"penstock app delete NAME"},
	"requests": {"penstock app requests NAME"},
	"restart":  {"penstock app restart NAME"},
	"rm":       {"penstock app delete NAME"},
	"rmi":      {"penstock image delete NAME"},
	"rollback": {"penstock app rollback NAME"},
	"rollout":  {"penstock app traffic show NAME", "penstock app rollback NAME"},
	"scale":    {"penstock app scale NAME"},
	"shell":    {"penstock app exec NAME -- sh"},
	"show":     {"penstock app show NAME"},
	"ssh":      {"penstock app exec NAME -- sh"},
	"start":    {"penstock app start NAME", "penstock up"},
	"stop":     {"penstock app stop NAME", "penstock down"},

	"environment":  {"penstock env list"},
	"environments": {"penstock env list"},
	"hostname":     {"penstock app hostname list NAME"},
	"images":       {"penstock image list"},
	"ingress":      {"penstock app ingress show NAME"},
	"jobs":         {"penstock job list"},
	"login":        {"penstock az-env"},
	"pull":         {"penstock image pull NAME"},
	"replicas":     {"penstock replica list NAME"},
	"revisions":    {"penstock revision list NAME"},
	"secret":       {"penstock app secret list NAME"},
	"secrets":      {"penstock app secret list NAME"},
	"stats":        {"penstock top"},
	"traffic":      {"penstock app traffic show NAME"},

	"app apply":  {"penstock up -f app.yaml"},
	"app create": {"penstock up -f app.yaml"},
	"app deploy": {"penstock up -f app.yaml"},
	"app update": {"penstock up -f app.yaml"},
	"app up":     {"penstock up -f app.yaml"},
	"image push": {"penstock build -t NAME DIR"},
	"image show": {"penstock image inspect NAME"},
}

// verbs has other tools' words for the verbs of a noun.
var verbs = map[string][]string{
	"add":      {"set", "upload"},
	"del":      {"delete", "remove"},
	"delete":   {"remove"},
	"describe": {"show"},
	"get":      {"show", "list"},
	"inspect":  {"show"},
	"log":      {"logs"},
	"ls":       {"list"},
	"ps":       {"list"},
	"remove":   {"delete"},
	"rm":       {"delete", "remove"},
	"run":      {"start"},
	"show":     {"list"},
}

// unknownCommand returns the error for arguments that name no command, with what was probably meant, or nil if they name one.
func unknownCommand(root *cobra.Command, args []string) error {
	cmd, rest, _ := root.Find(args)
	words := withoutFlags(cmd, rest)
	if !cmd.HasSubCommands() || len(words) == 0 {
		return nil
	}
	noun := strings.TrimSpace(strings.TrimPrefix(cmd.CommandPath(), root.Name()))
	meant := slices.Clone(expected[strings.TrimSpace(noun+" "+words[0])])
	for i, command := range meant {
		if len(words) > 1 {
			meant[i] = strings.Replace(command, " NAME", " "+words[1], 1)
		}
	}
	if noun != "" {
		for _, verb := range verbs[words[0]] {
			for _, sub := range cmd.Commands() {
				if sub.Name() == verb {
					meant = append(meant, sub.CommandPath())
				}
			}
		}
	}
	if len(meant) == 0 {
		cmd.SuggestionsMinimumDistance = 2 // as in cobra
		for _, name := range cmd.SuggestionsFor(words[0]) {
			meant = append(meant, cmd.CommandPath()+" "+name)
		}
	}
	err := UsageError(fmt.Errorf("unknown command %q for %q", words[0], cmd.CommandPath()))
	if len(meant) == 0 {
		return err
	}
	return hint(err, "%s", strings.Join(meant, "\n"))
}

// withoutFlags returns the words of a command line that are neither flags nor their values.
func withoutFlags(cmd *cobra.Command, args []string) (words []string) {
	for i := 0; i < len(args); i++ {
		switch arg := args[i]; {
		case arg == "--":
			return words
		case !strings.HasPrefix(arg, "-"):
			words = append(words, arg)
		case !strings.Contains(arg, "=") && takesValue(cmd, arg):
			i++
		}
	}
	return words
}

func takesValue(cmd *cobra.Command, arg string) bool {
	var f *pflag.Flag
	for _, set := range []*pflag.FlagSet{cmd.Flags(), cmd.PersistentFlags(), cmd.InheritedFlags()} {
		if name, long := strings.CutPrefix(arg, "--"); long {
			f = set.Lookup(name)
		} else if len(arg) == 2 {
			f = set.ShorthandLookup(arg[1:])
		}
		if f != nil {
			return f.NoOptDefVal == ""
		}
	}
	return false
}
