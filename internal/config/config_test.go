package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/trustcast/trustcast/internal/config"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f")
	must(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// flags of a command, the last of which only a command line gives.
func flags() *pflag.FlagSet {
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	f.String("listen", ":5000", "")
	f.Duration("tick", time.Minute, "")
	f.Bool("init", false, "")
	f.StringSlice("alias", nil, "")
	f.String("window", "", "when (default always)")
	f.String("skip", "", "")
	config.FromCommandLine(f, "skip")
	return f
}

func none(string) string { return "" }

func TestPrecedence(t *testing.T) {
	file, err := config.Read(write(t, "listen: file\ntick: 3s\ninit: true\nalias:\n  - a,b\n  - c\nother: x\nskip: y\n"))
	must(t, err)
	f := flags()
	must(t, f.Parse([]string{"--listen", "flag"}))
	environ := map[string]string{"TRUSTCAST_LISTEN": "environment", "TRUSTCAST_TICK": "2s", "TRUSTCAST_SKIP": "x"}
	origins, err := config.Lay(f, func(name string) string { return environ[name] }, file)
	must(t, err)
	var got strings.Builder
	for _, s := range config.Settings(f, origins) {
		got.WriteString(s.Key + "=" + s.Value + " " + string(s.Origin) + "\n")
	}
	const want = "alias=[\"a,b\",c] file\ninit=true file\nlisten=flag flag\ntick=2s environment\nwindow=always default\n"
	if got.String() != want {
		t.Errorf("got\n%swant\n%s", &got, want)
	}
	if skip := f.Lookup("skip"); skip.Changed || !f.Lookup("alias").Changed {
		t.Error("skip was set, or alias was not")
	}
}

func TestMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"listen: [":                  "no YAML",
		"- listen":                   ":1: a configuration file has a setting a line",
		"{listen: a}":                ":1: a configuration file has a setting a line",
		"a: 1\n---\nb: 2":            "after the end of the first document",
		"a: 1\nlisten: 1\nlisten: 2": ":3: listen: stands on line 2 already: remove one",
		"? [a]\n: b":                 ":1: a setting's name is one word",
		"a: &x 1\nlisten: *x":        "anchors and aliases are not read here",
		"listen: *hunter2":           "no YAML: anchors and aliases are not read here: put what begins with * in quotes",
		"\nlisten:":                  ":2: listen: has no value",
		"listen: [a]":                ":1: listen: takes one value, and here is a list",
		"listen: {a: b}":             ":1: listen: takes a value, and here is a section",
		"alias: [[a]]":               ":1: alias: an item of the list is no plain value",
		"tick: soon":                 `:1: tick: "soon": time: invalid duration`,
		"init: perhaps":              `:1: init: "perhaps"`,
		"listne: a":                  ":1: listne: there is no such setting; did you mean listen?",
		"registr: a":                 "did you mean registry?",
		"colour: a":                  ":1: colour: there is no such setting; settings are called as the flags",
		"skip: a":                    ":1: skip: says what one command does once",
		"config: a":                  ":1: config: a configuration file names no other",
	} {
		path := write(t, text)
		file, err := config.Read(path)
		f := flags()
		if err == nil {
			err = file.Check([]*pflag.FlagSet{f})
		}
		if err == nil {
			_, err = config.Lay(f, none, file)
		}
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), path) {
			t.Errorf("%q: %v\nwant %s", text, err, want)
		}
	}
}

func TestEmptyFiles(t *testing.T) {
	for _, text := range []string{"", "\n", "# a comment\n", "---\n", "registry:\n", "null"} {
		file, err := config.Read(write(t, text))
		must(t, err)
		f := flags()
		must(t, file.Check([]*pflag.FlagSet{f}))
		if origins, err := config.Lay(f, none, file); err != nil || len(origins) > 0 || file.Registry != nil {
			t.Errorf("%q: %v, %v, %q", text, origins, err, file.Registry)
		}
	}
}

// The section is handed on with its lines where they were.
func TestSection(t *testing.T) {
	for text, want := range map[string]string{
		"listen: a\nregistry:\n  # why\n  storage:\n    delete: {enabled: true}\ntick: 1s\n": "\n\n\n  storage:\n    delete: {enabled: true}\n",
		"registry: {storage: inmemory} # why\nlisten: a\n":                                   "          {storage: inmemory} # why\n",
		"ä: 1\nregistry: {a: 'ä',\n  b: c}\n":                                                "\n          {a: 'ä',\n  b: c}\n",
		"registry:\n- a":                                                                     "\n- a",
	} {
		file, err := config.Read(write(t, text))
		must(t, err)
		if string(file.Registry) != want {
			t.Errorf("%q: %q, want %q", text, file.Registry, want)
		}
	}
}

func TestUnreadable(t *testing.T) {
	dir := t.TempDir()
	pipe, large := filepath.Join(dir, "pipe"), filepath.Join(dir, "large")
	must(t, syscall.Mkfifo(pipe, 0o600))
	must(t, os.WriteFile(large, make([]byte, 4<<20+1), 0o600))
	for path, want := range map[string]string{pipe: "no regular file", dir: "no regular file", large: "more than 4 MiB", filepath.Join(dir, "absent"): "no such file"} {
		if _, err := config.Find(path); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "--config off") || strings.Count(err.Error(), path) != 1 {
			t.Errorf("%s: %v", path, err)
		}
	}
	if file, err := config.Find(config.Off); err != nil || file.Path != "" {
		t.Errorf("%+v, %v", file, err)
	}
}

func TestPublic(t *testing.T) {
	path := write(t, "listen: a")
	for mode, want := range map[os.FileMode]bool{0o600: false, 0o640: false, 0o644: true} {
		must(t, os.Chmod(path, mode))
		if file, err := config.Read(path); err != nil || file.Public != want {
			t.Errorf("%o: %+v, %v", mode, file, err)
		}
	}
}

// FuzzFile: no text makes it panic, and a section that is cut out says the same
// alone as in the file.
func FuzzFile(f *testing.F) {
	for _, text := range []string{"listen: a\nregistry:\n  storage: {delete: {enabled: true}}\ntick: 1s\n", "registry: |\n  a\n\n  b\nx: y", "registry: {a: b,\n c: d} # e\n", "? registry\n: a\n"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "f")
		must(t, os.WriteFile(path, []byte(text), 0o600))
		file, err := config.Read(path)
		if err != nil {
			return
		}
		_ = file.Check([]*pflag.FlagSet{flags()})
		_, _ = config.Lay(flags(), none, file)
		var whole map[string]any
		if file.Registry == nil || yaml.Unmarshal([]byte(text), &whole) != nil {
			return
		}
		var alone any
		if err := yaml.Unmarshal(file.Registry, &alone); err != nil {
			return // refused by whoever reads it
		}
		a, err1 := yaml.Marshal(whole["registry"])
		b, err2 := yaml.Marshal(alone)
		if err1 == nil && err2 == nil && string(a) != string(b) {
			t.Errorf("in the file\n%salone\n%sof %q", a, b, file.Registry)
		}
	})
}

// Every mistake is named, not the first alone.
func TestEachMistake(t *testing.T) {
	file, err := config.Read(write(t, "listne: a\ntick: soon\nskip: x\ninit: maybe\n"))
	must(t, err)
	unknown := file.Check([]*pflag.FlagSet{flags()})
	_, bad := config.Lay(flags(), func(name string) string {
		return map[string]string{"TRUSTCAST_TICK": "never"}[name]
	}, file)
	for err, want := range map[error][]string{unknown: {":1: listne: ", ":3: skip: "}, bad: {`TRUSTCAST_TICK="never"`, `:4: init: "maybe": give true or false`}} {
		for _, part := range want {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%v\nhas no %s", err, part)
			}
		}
	}
}
