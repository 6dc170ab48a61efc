package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/trustcast/trustcast/agent"
	"github.com/trustcast/trustcast/internal/cli"
)

// app is one invocation: where it reads and writes.
type app struct {
	getenv         func(string) string
	environ        func() []string // for typing mistakes in it
	stdin          io.Reader
	stdout, stderr io.Writer
}

// command is one verb of the agent.
type command struct {
	name, args, short, example string
	// define adds the verb's flags and returns what to do with them.
	define func(*flag.FlagSet) func(ctx context.Context, args []string) error
}

func (a *app) commands() []command {
	return []command{a.join(), a.run(), a.status(), a.doctor(), a.health(), a.leave(), a.completion(), a.version()}
}

func (a *app) execute(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.Join(a.help(a.stderr), cli.Silent(cli.Usage))
	}
	name, rest := args[0], args[1:]
	if name == "help" || name == "-h" || name == "--help" {
		return a.helpOn(rest)
	}
	for _, c := range a.commands() {
		if c.name == name {
			return a.perform(ctx, c, rest)
		}
	}
	return cli.Errorf(cli.Usage, "there is no command %q; 'trustcast-agent help' lists them", name)
}

// perform parses flags and arguments in any order, then the environment.
func (a *app) perform(ctx context.Context, c command, args []string) error {
	flags := flag.NewFlagSet(c.name, flag.ContinueOnError)
	flags.SetOutput(io.Discard) // errors are printed once, by cli.Report
	do := c.define(flags)
	var positional []string
	for rest := args; ; {
		if err := flags.Parse(rest); errors.Is(err, flag.ErrHelp) {
			return a.commandHelp(a.stdout, c)
		} else if err != nil {
			return cli.Errorf(cli.Usage, "%s; see 'trustcast-agent help %s'", plainly(err), c.name)
		}
		if rest = flags.Args(); len(rest) == 0 {
			break
		}
		positional, rest = append(positional, rest[0]), rest[1:]
	}
	if err := a.environment(flags); err != nil {
		return err
	}
	if c.name == "join" || c.name == "run" {
		a.sayTypos(flags)
	}
	return coded(do(ctx, positional))
}

// plainly is what a flag's parser says; of a switch it says only that it failed.
func plainly(err error) string {
	return strings.Replace(err.Error(), "parse error", "give true or false", 1)
}

// coded gives the agent's sentinels their exit codes.
func coded(err error) error {
	switch {
	case errors.Is(err, agent.ErrUnreachable):
		return cli.Errorf(cli.Unreachable, "%w", err)
	case errors.Is(err, agent.ErrWhich):
		return cli.Errorf(cli.Usage, "%w", err)
	case errors.Is(err, agent.ErrNotJoined):
		return cli.Errorf(cli.NotFound, "%w", err)
	case errors.Is(err, agent.ErrDomain), errors.Is(err, agent.ErrAddress), errors.Is(err, agent.ErrNoToken):
		return cli.Errorf(cli.Usage, "%w", err)
	}
	return err
}

// environment sets each flag that the command line left alone from its
// variable.
func (a *app) environment(flags *flag.FlagSet) error {
	given := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	var err error
	flags.VisitAll(func(f *flag.Flag) {
		name := cli.Variable(f.Name)
		value := a.getenv(name)
		if err != nil || given[f.Name] || f.Name == "o" || value == "" {
			return
		}
		if bad := flags.Set(f.Name, value); bad != nil {
			err = cli.Errorf(cli.Usage, "environment variable %s=%q: %s", name, value, plainly(bad))
		}
	})
	return err
}

// sayTypos warns of variables that are called nearly like one of the flags.
func (a *app) sayTypos(flags *flag.FlagSet) {
	var known []string
	flags.VisitAll(func(f *flag.Flag) { known = append(known, f.Name) })
	for _, line := range cli.Typos(a.environ(), known, known) {
		_, _ = fmt.Fprintln(a.stderr, "warning: "+line) // a remark
	}
}

// extra refuses arguments beyond the first n.
func extra(args []string, n int, command string) error {
	if len(args) > n {
		return cli.Errorf(cli.Usage, "unexpected argument %q; see 'trustcast-agent help %s'", args[n], command)
	}
	return nil
}

func (a *app) helpOn(args []string) error {
	if len(args) == 0 {
		return a.help(a.stdout)
	}
	for _, c := range a.commands() {
		if c.name == args[0] {
			return a.commandHelp(a.stdout, c)
		}
	}
	return cli.Errorf(cli.Usage, "there is no command %q; 'trustcast-agent help' lists them", args[0])
}

func (a *app) help(w io.Writer) error {
	var b strings.Builder
	b.WriteString("  trustcast-agent join registry.example.com:7443 --token tc1.…   # as 'trustcast token create' prints it\n" +
		"  trustcast-agent run\n  trustcast-agent status\n\n" +
		"Brings a registry's CA to this Docker host, keeps it right, and follows every rotation.\n\nCommands:\n")
	for _, c := range a.commands() {
		fmt.Fprintf(&b, "  %-10s %s\n", c.name, c.short)
	}
	b.WriteString("\n'trustcast-agent help COMMAND' shows a command's flags; each is also an environment variable TRUSTCAST_<FLAG>.\n" +
		"Exit codes: 0 done, 1 failed, 2 usage, 3 answered but the state is bad, 4 not found, 5 server or agent unreachable.\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func (a *app) commandHelp(w io.Writer, c command) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n%s.\n\nUsage:\n  trustcast-agent %s\n", c.example, c.short, strings.TrimSpace(c.name+" "+c.args))
	flags := flag.NewFlagSet(c.name, flag.ContinueOnError)
	c.define(flags)
	heading := "\nFlags (each also as environment variable TRUSTCAST_<FLAG>):\n"
	flags.VisitAll(func(f *flag.Flag) {
		value, usage := flag.UnquoteUsage(f)
		if f.DefValue != "" && f.DefValue != "false" {
			usage += fmt.Sprintf(" (default %s)", f.DefValue)
		}
		dashes := "--"
		if len(f.Name) == 1 {
			dashes = "-"
		}
		fmt.Fprintf(&b, "%s  %-30s %s\n", heading, strings.TrimSpace(dashes+f.Name+" "+value), usage)
		heading = ""
	})
	_, err := io.WriteString(w, b.String())
	return err
}
