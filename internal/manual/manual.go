// Package manual writes the reference of a program's commands: Markdown for docs/,
// roff for man, and the keys of what -o json prints.
//
// It knows no command: the tests of cmd/ describe theirs from the tree that the
// program itself runs, so that nothing is told twice. No program imports it.
package manual

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/trustcast/trustcast/internal/cli"
)

// Page is what one man page tells.
type Page struct {
	// Name is the words of the command line, like "trustcast user".
	Name string
	// Short is one line; Long and Example may be empty.
	Short, Long, Example string
	// Usage is the whole line; empty for a command that only has commands.
	Usage string
	// Flags are its own.
	Flags []Flag
	// Commands are those below, told in the page itself.
	Commands []Page
	// Others are names of commands that have a page of their own, with what they do.
	Others []Entry
	// Shared are flags that all commands have.
	Shared []Flag
	// Files are what it reads and writes, with what is in there.
	Files []Entry
	// See names other pages, like "trustcast(1)".
	See []string
}

// Entry is a term and what it means.
type Entry struct{ Term, Meaning string }

// Flag is an option of a command.
type Flag struct {
	// Name is without dashes, Letter empty if there is none.
	Name, Letter string
	// Value is empty for a switch; Default is empty if there is none.
	Value, Usage, Default string
	// Typed: neither environment nor file sets it.
	Typed bool
}

// saidDefault is a default in the words of a flag's help.
var saidDefault = regexp.MustCompile(` \(default ([^()]+)\)$`)

// NewFlag describes a flag by what its help says. A default of "false", "0" or "[]" is
// none to speak of.
func NewFlag(name, letter, value, usage, defaults string) Flag {
	if said := saidDefault.FindStringSubmatch(usage); said != nil {
		usage, defaults = strings.TrimSuffix(usage, said[0]), said[1]
	}
	switch defaults {
	case "false", "0", "[]":
		defaults = ""
	}
	return Flag{Name: name, Letter: letter, Value: value, Usage: usage, Default: defaults}
}

// Spelled is how the flag is written: "-o, --output text|json".
func (f Flag) Spelled() string {
	text := "--" + f.Name
	if f.Letter != "" {
		text = "-" + f.Letter + ", " + text
	}
	return strings.TrimSpace(text + " " + f.Value)
}

// meaning is what the flag does, with its default.
func (f Flag) meaning() string {
	if f.Default == "" {
		return f.Usage
	}
	return fmt.Sprintf("%s (default %s)", f.Usage, f.Default)
}

// variable is the name of the environment variable that sets the flag; "" if none does.
func (f Flag) variable() string {
	if f.Typed {
		return ""
	}
	return cli.Variable(f.Name)
}

// ExitCodes are what both programs end with.
var ExitCodes = []Entry{
	{fmt.Sprint(cli.Done), "done, or nothing to do"},
	{fmt.Sprint(cli.Failed), "failed"},
	{fmt.Sprint(cli.Usage), "used wrongly: arguments, flags, variables or the configuration file"},
	{fmt.Sprint(cli.Bad), "answered, but the state is bad"},
	{fmt.Sprint(cli.NotFound), "what was named is not there"},
	{fmt.Sprint(cli.Unreachable), "the server or the agent cannot be reached"},
}

// Hold compares a block of a page in docs/ with body: what stands after the comment that
// begins with its name, up to the comment "end". The error says what to run; with update
// the page is written instead.
func Hold(path, name, body string, update bool) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	block := regexp.MustCompile(`(?s)(<!-- ` + regexp.QuoteMeta(name) + `:[^\n]*\n).*?(<!-- end -->)`)
	if !block.Match(old) {
		return fmt.Errorf("%s has no block %q", path, name)
	}
	page := block.ReplaceAllString(string(old), "${1}"+strings.ReplaceAll(body, "$", "$$")+"${2}")
	switch {
	case page == string(old):
		return nil
	case update:
		return os.WriteFile(path, []byte(page), 0o644) //nolint:gosec // a page for all to read
	}
	return fmt.Errorf("%s does not say what the program does: run 'make generate', and see what changes", path)
}

// Write writes the man pages into the directory $MAN_DIR, or else into scratch, of the
// date $MAN_DATE and the version $MAN_VERSION, and returns their files.
func Write(pages []Page, getenv func(string) string, scratch string) ([]string, error) {
	dir := cmp.Or(getenv("MAN_DIR"), scratch)
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // pages for all to read
		return nil, err
	}
	edition := Edition{Date: cmp.Or(getenv("MAN_DATE"), "2000-01-01"), Version: getenv("MAN_VERSION")}
	var files []string
	for _, p := range pages {
		files = append(files, filepath.Join(dir, p.File()))
		if err := os.WriteFile(files[len(files)-1], []byte(p.Roff(edition)), 0o644); err != nil { //nolint:gosec // the same
			return nil, err
		}
	}
	return files, nil
}

// Lint returns what mandoc says about man pages, from warnings on.
func Lint(files []string) (said string, err error) {
	out, err := exec.Command("mandoc", append([]string{"-Tlint", "-W", "warning"}, files...)...).CombinedOutput()
	if e := new(exec.ExitError); errors.As(err, &e) {
		return string(out), nil
	}
	return string(out), err
}
