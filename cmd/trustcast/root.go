package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/trustcast/trustcast/internal/cli"
	"github.com/trustcast/trustcast/internal/config"
)

// app is one invocation: where it reads and writes, and what all commands share.
type app struct {
	getenv         func(string) string
	environ        func() []string // all of it, for the registry's own variables
	stdin          io.Reader
	stdout, stderr io.Writer
	dataDir        string
	configFile     string
	file           *config.File   // what was found there
	origins        config.Origins // of the command's flags
	// parsed: arguments, environment and file were accepted, so that what fails now
	// is no usage error any more.
	parsed bool
}

func newApp(getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) *app {
	return &app{getenv: getenv, environ: os.Environ, stdin: stdin, stdout: stdout, stderr: stderr}
}

const (
	defaultDataDir = "/var/lib/trustcast"
	configFlag     = "config"
)

// helpTemplate starts with the example: it is what most readers look for.
const helpTemplate = `{{with .Example}}{{.}}

{{end}}{{with (or .Long .Short)}}{{. | trimTrailingWhitespaces}}

{{end}}{{.UsageString}}`

const usageTemplate = `Usage:
  {{if .HasAvailableSubCommands}}{{.CommandPath}} COMMAND{{else}}{{.UseLine}}{{end}}
{{if .HasAvailableSubCommands}}
Commands:{{range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}
{{end}}{{if .HasAvailableLocalFlags}}
Flags (each also as environment variable TRUSTCAST_<FLAG>, and by its name in the configuration file):
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}
{{end}}{{if .HasAvailableInheritedFlags}}
Flags of all commands:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}
{{end}}`

func (a *app) root() *cobra.Command {
	c := a.group("trustcast", "A Docker registry whose CA reaches every host, and rotates without a failed pull",
		`  trustcast server --init --domain registry.example.com --user ci   # a registry in one line
  trustcast token create                                            # prints the line for each host
  trustcast status`,
		a.initCommand(), a.server(), a.status(), a.doctor(), a.health(), a.user(), a.ca(), a.token(), a.host(), a.fleet(), a.registry(), a.backup(), a.restore(), a.config(), a.version(), a.completion())
	c.Long = c.Short + ".\n\nExit codes: 0 done, 1 failed, 2 usage, 3 answered but the state is bad, 4 not found, 5 server unreachable."
	c.SilenceErrors, c.SilenceUsage = true, true
	c.SetHelpTemplate(helpTemplate)
	c.SetUsageTemplate(usageTemplate)
	c.PersistentFlags().StringVar(&a.dataDir, "data-dir", defaultDataDir, "the server's data `directory`; its socket is in there")
	c.PersistentFlags().StringVar(&a.configFile, configFlag, "", "configuration `file` with flags by their names, or off (default "+config.DefaultPath+" if it exists)")
	c.SetHelpCommand(a.help())
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return config.Misused(err) })
	c.PersistentPreRunE = func(c *cobra.Command, _ []string) error {
		if completing(c.CalledAs()) {
			return nil // what it completes reads its own
		}
		if err := a.configure(c); err != nil {
			return err
		}
		a.parsed = true
		return nil
	}
	return c
}

func (a *app) execute(ctx context.Context, args []string) error {
	root := a.root()
	if len(args) > 0 && completing(args[0]) {
		a.offer(root)
	}
	root.SetArgs(args)
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	c, err := root.ExecuteContextC(ctx)
	if err != nil && !a.parsed {
		return a.misused(c, err)
	}
	return err
}

// completing: a completion script asks with this command.
func completing(name string) bool {
	return name == cobra.ShellCompRequestCmd || name == cobra.ShellCompNoDescRequestCmd
}

// misused makes a usage error of what cobra refused.
func (a *app) misused(c *cobra.Command, err error) error {
	if errors.Is(err, errHelpShown) {
		return cli.Silent(cli.Usage)
	}
	return cli.Errorf(cli.Usage, "%w; see '%s --help'", err, c.CommandPath())
}

var errHelpShown = errors.New("help shown")

// group is a command that only has commands.
func (a *app) group(name, short, example string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: name, Short: short, Example: example}
	c.AddCommand(commands...)
	c.Args = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			c.SetOut(a.stderr)
			return errors.Join(errHelpShown, c.Help())
		}
		if near := c.SuggestionsFor(args[0]); len(near) > 0 {
			return fmt.Errorf("%s has no command %q; did you mean %s?", c.CommandPath(), args[0], strings.Join(near, " or "))
		}
		return fmt.Errorf("%s has no command %q", c.CommandPath(), args[0])
	}
	c.RunE = func(*cobra.Command, []string) error { return nil } // Args never lets it come here
	return c
}

// names demands exactly these arguments.
func names(want ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args) < len(want):
			return fmt.Errorf("%s needs %s", c.CommandPath(), strings.Join(want[len(args):], " and "))
		case len(args) > len(want) && len(want) == 0:
			return fmt.Errorf("%s takes no argument, but there is %q", c.CommandPath(), args[0])
		case len(args) > len(want):
			return fmt.Errorf("%s takes %s alone, but there is %q too", c.CommandPath(), strings.Join(want, " and "), args[len(want)])
		}
		for i, arg := range args {
			if arg == "" {
				return fmt.Errorf("%s is empty", want[i])
			}
		}
		return nil
	}
}

// configure gives the flags that the command line left alone their values.
func (a *app) configure(c *cobra.Command) error {
	path := a.configFile
	if path == "" {
		path = a.getenv(cli.Variable(configFlag))
	}
	var err error
	if a.file, err = config.Find(path); err != nil {
		return err
	}
	if a.file.Closed {
		a.say("warning: this user may not read %s: its settings count for nothing here", config.DefaultPath)
	}
	unknown := a.file.Check(allFlags(c.Root()))
	a.origins, err = config.Lay(c.Flags(), a.getenv, a.file)
	return errors.Join(unknown, err)
}

// sayTypos warns of variables that are called nearly like a setting of the command.
func (a *app) sayTypos(c *cobra.Command) {
	var known, wanted []string
	for _, flags := range allFlags(c.Root()) {
		flags.VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
	}
	c.Flags().VisitAll(func(f *pflag.Flag) { wanted = append(wanted, f.Name) })
	for _, line := range cli.Typos(a.environ(), known, wanted) {
		a.say("warning: %s", line)
	}
}

// allFlags are those of a command and all below it.
func allFlags(c *cobra.Command) []*pflag.FlagSet {
	sets := []*pflag.FlagSet{c.LocalFlags()}
	for _, below := range c.Commands() {
		sets = append(sets, allFlags(below)...)
	}
	return sets
}
