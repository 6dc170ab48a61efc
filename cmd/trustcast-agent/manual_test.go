package main

import (
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trustcast/trustcast/internal/manual"
)

var update = flag.Bool("update", false, "rewrite docs/reference")

func quiet() *app {
	return &app{getenv: func(string) string { return "" }, environ: os.Environ, stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard}
}

// manualPages are one page: the program is small.
func manualPages() []manual.Page {
	p := manual.Page{
		Name: "trustcast-agent", Short: "Bring a registry's CA to this Docker host, keep it right, follow every rotation",
		Example: "  trustcast-agent join registry.example.com:7443 --token tc1.…   # as 'trustcast token create' prints it\n  trustcast-agent run\n  trustcast-agent status",
		Files: []manual.Entry{
			{Term: "/var/lib/trustcast-agent", Meaning: "this host's identity and the last good state; see --data-dir"},
			{Term: "/etc/docker/certs.d", Meaning: "where Docker reads CAs from; see --docker-certs-dir"},
		},
		See: []string{"trustcast(1)", "trustcast-token(1)"},
	}
	for _, c := range quiet().commands() {
		flags := defined(c)
		p.Commands = append(p.Commands, manual.Page{
			Name: "trustcast-agent " + c.name, Short: c.short, Example: c.example, Flags: flagsOf(flags),
			Usage: strings.TrimSpace("trustcast-agent " + c.name + " " + c.args),
		})
	}
	return []manual.Page{p}
}

func defined(c command) *flag.FlagSet {
	flags := flag.NewFlagSet(c.name, flag.ContinueOnError)
	c.define(flags)
	return flags
}

func flagsOf(flags *flag.FlagSet) []manual.Flag {
	letters := map[string]string{}
	flags.VisitAll(func(f *flag.Flag) {
		if long, is := strings.CutPrefix(f.Usage, "short for --"); is {
			long, _, _ = strings.Cut(long, ",")
			letters[long] = f.Name
		}
	})
	var all []manual.Flag
	flags.VisitAll(func(f *flag.Flag) {
		if len(f.Name) > 1 {
			value, usage := flag.UnquoteUsage(f)
			all = append(all, manual.NewFlag(f.Name, letters[f.Name], value, usage, f.DefValue))
		}
	})
	return all
}

// page holds a block of a page of the reference to what the program says.
func page(t *testing.T, name, block, body string) {
	t.Helper()
	if err := manual.Hold(filepath.Join("..", "..", "docs", "reference", name), block, body, *update); err != nil {
		t.Error(err)
	}
}

// TestReferenceOfCommands: docs/reference/agent-cli.md is what help says.
func TestReferenceOfCommands(t *testing.T) {
	page(t, "agent-cli.md", "commands", manual.Markdown(manualPages()))
}

// TestReferenceOfJSON: docs/reference/json.md has each key that is printed.
func TestReferenceOfJSON(t *testing.T) {
	comments, err := manual.ReadComments(".", "../../internal/cli")
	if err != nil {
		t.Fatal(err)
	}
	var all []manual.Printed
	for _, c := range quiet().commands() {
		if f := defined(c).Lookup("output"); f != nil {
			all = append(all, manual.Printed{Command: "trustcast-agent " + c.name, Shapes: f.Value.(*format).shapes})
		}
	}
	text, err := manual.JSON(all, comments)
	if err != nil {
		t.Fatal(err)
	}
	page(t, "json.md", "agent", text)
}

// TestManPages writes the page, where `make man` says or into a directory that is gone
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

// TestHelp: each command says what it does, shows an example, and each flag its value.
func TestHelp(t *testing.T) {
	for _, c := range quiet().commands() {
		if c.short == "" || strings.HasSuffix(c.short, ".") || !strings.Contains(c.example, "trustcast-agent "+c.name) {
			t.Errorf("%s: it has no sentence, or no example of itself: %q, %q", c.name, c.short, c.example)
		}
		defined(c).VisitAll(func(f *flag.Flag) {
			if value, usage := flag.UnquoteUsage(f); usage == "" || strings.HasSuffix(usage, ".") || value == "string" || value == "value" {
				t.Errorf("%s --%s: the help does not say what it does, or what the value is: %q, %q", c.name, f.Name, value, usage)
			}
		})
	}
}
