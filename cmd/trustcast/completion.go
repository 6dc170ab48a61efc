package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// completion replaces cobra's own, which prints help and succeeds for a shell
// that it does not know.
func (a *app) completion() *cobra.Command {
	shells := newChoice("bash", "fish", "zsh")
	c := &cobra.Command{
		Use: "completion bash|fish|zsh", Short: "Print the completion script of a shell",
		Example:   "  source <(trustcast completion bash)\n  trustcast completion bash >/etc/bash_completion.d/trustcast",
		ValidArgs: shells.allowed,
	}
	c.Args = func(c *cobra.Command, args []string) error {
		if err := names("a shell: bash, fish or zsh")(c, args); err != nil {
			return err
		}
		if err := shells.Set(args[0]); err != nil {
			return fmt.Errorf("no completion for this shell: %w", err)
		}
		return nil
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		switch shells.value {
		case "fish":
			return c.Root().GenFishCompletion(a.stdout, true)
		case "zsh":
			return c.Root().GenZshCompletion(a.stdout)
		default:
			return c.Root().GenBashCompletionV2(a.stdout, true)
		}
	}
	return c
}

// help replaces cobra's own for the same reason.
func (a *app) help() *cobra.Command {
	var topic *cobra.Command
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "Show how to use a command", Hidden: true,
		Args: func(c *cobra.Command, args []string) error {
			var rest []string
			var err error
			if topic, rest, err = c.Root().Find(args); err != nil || len(rest) > 0 {
				return fmt.Errorf("there is no command %q", strings.Join(args, " "))
			}
			return nil
		},
		RunE: func(*cobra.Command, []string) error { return topic.Help() },
	}
}
