package main

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/trustcast/trustcast/internal/config"
	"github.com/trustcast/trustcast/internal/manual"
)

// manualFiles are what an operator should know of.
var manualFiles = []manual.Entry{
	{Term: config.DefaultPath, Meaning: "configuration: flags by their names, and the registry's own parameters; read if it exists"},
	{Term: defaultDataDir, Meaning: "all data: images, users, certificates, keys, records; see --data-dir"},
	{Term: defaultDataDir + "/state/admin.sock", Meaning: "where a running server listens for this program, for the user that runs it and root"},
}

// manualPages are one page for the program and one for each of its nouns, with the
// commands below in it.
func manualPages() []manual.Page {
	root := quiet().root()
	top := describe(root)
	top.Shared = flagsOf(root.PersistentFlags())
	top.Files, top.See = manualFiles, []string{"trustcast-agent(1)"}
	pages := []manual.Page{top}
	for _, c := range root.Commands() {
		if !c.IsAvailableCommand() {
			continue
		}
		p := describe(c)
		for _, below := range c.Commands() {
			p.Commands = append(p.Commands, describe(below))
		}
		p.Shared, p.Files, p.See = top.Shared, manualFiles, []string{"trustcast(1)", "trustcast-agent(1)"}
		pages = append(pages, p)
		pages[0].Others = append(pages[0].Others, manual.Entry{Term: c.CommandPath(), Meaning: c.Short + "; see " + strings.ReplaceAll(c.CommandPath(), " ", "-") + "(1)"})
		pages[0].See = append(pages[0].See, strings.ReplaceAll(c.CommandPath(), " ", "-")+"(1)")
	}
	return pages
}

func describe(c *cobra.Command) manual.Page {
	p := manual.Page{Name: c.CommandPath(), Short: c.Short, Long: c.Long, Example: c.Example}
	if !c.HasSubCommands() {
		p.Usage, p.Flags = c.UseLine(), flagsOf(c.LocalNonPersistentFlags())
	}
	return p
}

func flagsOf(flags *pflag.FlagSet) []manual.Flag {
	settable := map[string]bool{}
	for _, s := range config.Settings(flags, nil) {
		settable[s.Key] = true
	}
	var all []manual.Flag
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		described := manual.NewFlag(f.Name, f.Shorthand, value, usage, f.DefValue)
		described.Typed = !settable[f.Name]
		all = append(all, described)
	})
	return all
}

// TestReferenceOfCommands: docs/reference/cli.md is what --help says.
func TestReferenceOfCommands(t *testing.T) {
	page(t, "cli.md", "commands", manual.Markdown(manualPages()))
}

// printed lists what each command prints with -o json.
func printed() []manual.Printed {
	var all []manual.Printed
	each(quiet().root().Commands(), func(path string, flags *pflag.FlagSet) {
		if f := flags.Lookup("output"); f != nil {
			all = append(all, manual.Printed{Command: "trustcast " + strings.Trim(path, "`"), Shapes: f.Value.(*choice).shapes})
		}
	})
	return all
}

// TestReferenceOfJSON: docs/reference/json.md has each key that is printed.
func TestReferenceOfJSON(t *testing.T) {
	comments, err := manual.ReadComments(".", "../../internal/cli")
	if err != nil {
		t.Fatal(err)
	}
	text, err := manual.JSON(printed(), comments)
	if err != nil {
		t.Fatal(err)
	}
	page(t, "json.md", "trustcast", text)
}

// TestManPages writes them, where `make man` says or into a directory that is gone
// afterwards, and looks whether mandoc finds a mistake.
func TestManPages(t *testing.T) {
	files, err := manual.Write(manualPages(), os.Getenv, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	said, err := manual.Lint(files)
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip("needs mandoc")
	}
	if err != nil || said != "" {
		t.Errorf("%v\n%s", err, said)
	}
}

// TestHelp: each command says what it does, shows an example, and each flag its value
// and its default.
func TestHelp(t *testing.T) {
	var look func(*cobra.Command)
	look = func(c *cobra.Command) {
		for _, below := range c.Commands() {
			look(below)
		}
		if !c.IsAvailableCommand() && !c.HasSubCommands() {
			return // help itself
		}
		if c.Short == "" || strings.HasSuffix(c.Short, ".") || !strings.Contains(c.Example, c.CommandPath()) {
			t.Errorf("%s: it has no sentence, or no example of itself: %q, %q", c.CommandPath(), c.Short, c.Example)
		}
		for line := range strings.SplitSeq(c.Example, "\n") {
			if !strings.HasPrefix(line, "  ") {
				t.Errorf("%s: a line of the example is not indented: %q", c.CommandPath(), line)
			}
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			value, usage := pflag.UnquoteUsage(f)
			own := f.DefValue != "" && f.DefValue != "0" && f.DefValue != "[]"
			switch {
			case usage == "" || strings.HasSuffix(usage, "."):
				t.Errorf("%s --%s: %q says nothing, or is a sentence", c.CommandPath(), f.Name, usage)
			case slices.Contains([]string{"string", "strings", "stringArray"}, value):
				t.Errorf("%s --%s: the help does not say what the value is; put a word of it in backquotes", c.CommandPath(), f.Name)
			case slices.Contains([]string{"duration", "size", "int"}, f.Value.Type()) && !own && !strings.Contains(usage, "(default ") && !strings.Contains(usage, "0 "):
				t.Errorf("%s --%s: the help does not say the default", c.CommandPath(), f.Name)
			}
		})
	}
	look(quiet().root())
}
