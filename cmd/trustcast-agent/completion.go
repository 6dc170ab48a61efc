package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/trustcast/trustcast/internal/cli"
)

// completion prints a script that knows the commands and their flags by itself: it asks
// nobody, since all that it could ask is on another machine.
func (a *app) completion() command {
	return command{
		name: "completion", args: "bash|fish|zsh", short: "Print the completion script of a shell",
		example: "  source <(trustcast-agent completion bash)\n  trustcast-agent completion bash >/etc/bash_completion.d/trustcast-agent",
		define: func(*flag.FlagSet) func(context.Context, []string) error {
			return func(_ context.Context, args []string) error {
				if len(args) == 0 {
					return cli.Errorf(cli.Usage, "trustcast-agent completion needs a shell: bash, fish or zsh")
				}
				if err := extra(args, 1, "completion"); err != nil {
					return err
				}
				write, known := map[string]func(*strings.Builder, []completed){"bash": bash, "fish": fish, "zsh": zsh}[args[0]]
				if !known {
					return cli.Errorf(cli.Usage, "no completion for this shell: %q is none of bash, fish, zsh", args[0])
				}
				var b strings.Builder
				write(&b, a.completed())
				_, err := io.WriteString(a.stdout, b.String())
				return err
			}
		},
	}
}

// completed is a command as a shell sees it.
type completed struct {
	name, short string
	words       []string // its argument, if that is one of a few
	flags       []completedFlag
}

type completedFlag struct {
	dashed, usage string
	words         []string // the value, if it is one of a few
	paths, alone  bool     // the value is a file or directory; there is none
}

func (a *app) completed() []completed {
	var all []completed
	for _, c := range a.commands() {
		flags := flag.NewFlagSet(c.name, flag.ContinueOnError)
		c.define(flags)
		one := completed{name: c.name, short: c.short, words: choices(c.args)}
		flags.VisitAll(func(f *flag.Flag) {
			value, usage := flag.UnquoteUsage(f)
			one.flags = append(one.flags, completedFlag{
				dashed: dashed(f.Name), usage: usage, words: choices(value),
				paths: value == "file" || value == "directory", alone: value == "",
			})
		})
		all = append(all, one)
	}
	return all
}

func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// choices are the words of text|json; nil for what is not written so. What is in
// capitals stands for something else, as in auto|LIST.
func choices(value string) []string {
	if !strings.Contains(value, "|") || strings.ContainsAny(value, " [") {
		return nil
	}
	return slices.DeleteFunc(strings.Split(value, "|"), func(word string) bool { return word == strings.ToUpper(word) })
}

func names(all []completed) string {
	var words []string
	for _, c := range all {
		words = append(words, c.name)
	}
	return strings.Join(words, " ")
}

func bash(b *strings.Builder, all []completed) {
	b.WriteString("# bash completion of trustcast-agent\n_trustcast_agent() {\n" +
		"  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words= files=\n" +
		"  [ \"$cur\" != = ] || cur=\n  [ \"$prev\" != = ] || prev=${COMP_WORDS[COMP_CWORD-2]}\n" +
		"  case $COMP_CWORD:${COMP_WORDS[1]} in\n  1:*) words=" + quote(names(all)+" help") + " ;;\n  2:help) words=" + quote(names(all)) + " ;;\n")
	for _, c := range all {
		fmt.Fprintf(b, "  *:%s)\n    case $prev in\n", c.name)
		var switches []string
		for _, f := range c.flags {
			switches = append(switches, f.dashed)
			switch {
			case f.words != nil:
				fmt.Fprintf(b, "    %s) words=%s ;;\n", f.dashed, quote(strings.Join(f.words, " ")))
			case f.paths:
				fmt.Fprintf(b, "    %s) files=1 ;;\n", f.dashed)
			case !f.alone:
				fmt.Fprintf(b, "    %s) ;;\n", f.dashed)
			}
		}
		fmt.Fprintf(b, "    *) words=%s ;;\n    esac ;;\n", quote(strings.Join(append(c.words, switches...), " ")))
	}
	b.WriteString("  esac\n  local IFS=$'\\n'\n  if [ -n \"$files\" ]; then\n    compopt -o filenames\n    COMPREPLY=($(compgen -f -- \"$cur\"))\n  else\n" +
		"    COMPREPLY=($(IFS=$' \\n' compgen -W \"$words\" -- \"$cur\"))\n  fi\n}\ncomplete -F _trustcast_agent trustcast-agent\n")
}

func fish(b *strings.Builder, all []completed) {
	b.WriteString("# fish completion of trustcast-agent\ncomplete -c trustcast-agent -f\n")
	for _, c := range all {
		fmt.Fprintf(b, "complete -c trustcast-agent -n __fish_use_subcommand -a %s -d %s\n", c.name, quote(c.short))
		in := quote("__fish_seen_subcommand_from " + c.name)
		if c.words != nil {
			fmt.Fprintf(b, "complete -c trustcast-agent -n %s -a %s\n", in, quote(strings.Join(c.words, " ")))
		}
		for _, f := range c.flags {
			kind := "-l"
			if !strings.HasPrefix(f.dashed, "--") {
				kind = "-s"
			}
			fmt.Fprintf(b, "complete -c trustcast-agent -n %s %s %s -d %s", in, kind, strings.TrimLeft(f.dashed, "-"), quote(f.usage))
			switch {
			case f.words != nil:
				b.WriteString(" -x -a " + quote(strings.Join(f.words, " ")))
			case f.paths:
				b.WriteString(" -r -F")
			case !f.alone:
				b.WriteString(" -x")
			}
			b.WriteString("\n")
		}
	}
}

func zsh(b *strings.Builder, all []completed) {
	b.WriteString("#compdef trustcast-agent\n_trustcast_agent() {\n  local -a commands\n  commands=(\n")
	for _, c := range all {
		fmt.Fprintf(b, "    %s\n", quote(c.name+":"+c.short))
	}
	b.WriteString("  )\n  if (( CURRENT == 2 )); then _describe command commands; return; fi\n  local command=$words[2]\n  shift words; (( CURRENT-- ))\n  case $command in\n")
	for _, c := range all {
		fmt.Fprintf(b, "  %s) _arguments", c.name)
		for _, f := range c.flags {
			spec := f.dashed + "[" + strings.NewReplacer("[", "(", "]", ")", ":", `\:`).Replace(f.usage) + "]"
			switch {
			case f.words != nil:
				spec += ":value:(" + strings.Join(f.words, " ") + ")"
			case f.paths:
				spec += ":path:_files"
			case !f.alone:
				spec += ":value:"
			}
			b.WriteString(" " + quote(spec))
		}
		if c.words != nil {
			b.WriteString(" " + quote("1:value:("+strings.Join(c.words, " ")+")"))
		}
		b.WriteString(" ;;\n")
	}
	b.WriteString("  esac\n}\nif [ \"$funcstack[1]\" = _trustcast-agent ]; then _trustcast_agent; else compdef _trustcast_agent trustcast-agent; fi\n")
}

// quote is one word for any of the shells.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
