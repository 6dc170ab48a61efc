package main

import (
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/trustcast/trustcast/internal/cli"
	"github.com/trustcast/trustcast/internal/config"
	"github.com/trustcast/trustcast/internal/manual"
	"github.com/trustcast/trustcast/server"
)

var update = flag.Bool("update", false, "rewrite docs/reference")

// TestReference: the document has each setting as the program has it.
func TestReference(t *testing.T) {
	page(t, "configuration.md", "settings", ofServer())
	page(t, "configuration.md", "others", ofOthers())
}

// page holds a block of a page of the reference to what the program says.
func page(t *testing.T, name, block, body string) {
	t.Helper()
	if err := manual.Hold(filepath.Join("..", "..", "docs", "reference", name), block, body, *update); err != nil {
		t.Error(err)
	}
}

func quiet() *app {
	return newApp(func(string) string { return "" }, strings.NewReader(""), io.Discard, io.Discard)
}

// serverSettings are the flags of `trustcast server`.
func serverSettings() *pflag.FlagSet {
	root := quiet().root()
	c, _, err := root.Find([]string{"server"})
	if err != nil {
		panic(err)
	}
	flags := c.Flags()
	flags.AddFlagSet(root.PersistentFlags())
	return flags
}

func ofServer() string {
	var b strings.Builder
	b.WriteString("| key and flag | default | meaning |\n| --- | --- | --- |\n")
	flags := serverSettings()
	for _, s := range config.Settings(flags, nil) {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", s.Key, code(s.Value), meaning(flags.Lookup(s.Key)))
	}
	return b.String()
}

func ofOthers() string {
	var b strings.Builder
	b.WriteString("| key and flag | default | commands | meaning |\n| --- | --- | --- | --- |\n")
	ofServer := serverSettings()
	rows := map[string]string{}
	commands := map[string][]string{}
	each(quiet().root().Commands(), func(path string, flags *pflag.FlagSet) {
		for _, s := range config.Settings(flags, nil) {
			if ofServer.Lookup(s.Key) == nil {
				commands[s.Key] = append(commands[s.Key], path)
				rows[s.Key] = fmt.Sprintf("| `%s` | %s | %%s | %s |\n", s.Key, code(s.Value), strings.ReplaceAll(meaning(flags.Lookup(s.Key)), "%", "%%"))
			}
		}
	})
	for _, key := range slices.Sorted(maps.Keys(rows)) {
		names := strings.Join(commands[key], ", ")
		if len(commands[key]) > 4 {
			names = "all that have it"
		}
		fmt.Fprintf(&b, rows[key], names)
	}
	return b.String()
}

// each visits the commands that do something.
func each(commands []*cobra.Command, visit func(path string, flags *pflag.FlagSet)) {
	for _, c := range commands {
		if len(c.Commands()) > 0 {
			each(c.Commands(), visit)
		} else {
			visit("`"+strings.TrimPrefix(c.CommandPath(), "trustcast ")+"`", c.LocalFlags())
		}
	}
}

func code(s string) string {
	if s == "" {
		return "–"
	}
	return "`" + s + "`"
}

// meaning is a flag's usage without its default and the quotes around its value.
func meaning(f *pflag.Flag) string {
	_, usage := pflag.UnquoteUsage(f)
	usage, _, _ = strings.Cut(usage, " (default ")
	return strings.ReplaceAll(usage, "|", `\|`)
}

// TestExample: the file that people copy is read, and starts a server.
func TestExample(t *testing.T) {
	file, err := config.Read(filepath.Join("..", "..", "deploy", "config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := file.Check(allFlags(quiet().root())); err != nil {
		t.Error(err)
	}
	if _, err := config.Lay(serverSettings(), func(string) string { return "" }, file); err != nil {
		t.Error(err)
	}
	if _, _, err := (server.RegistryParameters{File: file.Path, Section: file.Registry}).Show(); err != nil || len(file.Registry) == 0 {
		t.Error(err)
	}
	// What is commented out is right as well.
	text, err := os.ReadFile(file.Path)
	if err != nil {
		t.Fatal(err)
	}
	all := regexp.MustCompile(`(?m)^# ([a-z-]+: )`).ReplaceAllString(string(text), "$1")
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(all), 0o600); err != nil {
		t.Fatal(err)
	}
	if file, err = config.Read(path); err != nil {
		t.Fatal(err)
	}
	if err := file.Check(allFlags(quiet().root())); err != nil {
		t.Error(err)
	}
	origins, err := config.Lay(serverSettings(), func(string) string { return "" }, file)
	if err != nil || len(origins) < 9 {
		t.Errorf("%v, %v", origins, err)
	}
}

// TestSettingsAreReadAsShown: a value that is shown can be given again.
func TestSettingsAreReadAsShown(t *testing.T) {
	for _, text := range []string{"90d", "36h", "12h30m", "10m", "1m30s", "500ms", "1d"} {
		var d duration
		if err := d.Set(text); err != nil {
			t.Fatal(err)
		}
		var again duration
		if err := again.Set(d.String()); err != nil || again != d {
			t.Errorf("%s is shown as %s (%v)", text, d.String(), err)
		}
	}
	if cli.Variable("grpc-listen") != "TRUSTCAST_GRPC_LISTEN" {
		t.Error("the document names another variable")
	}
}
