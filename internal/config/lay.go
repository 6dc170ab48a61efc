package config

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/trustcast/trustcast/internal/cli"
	"github.com/trustcast/trustcast/internal/near"
)

// commandLineOnly marks flags that neither environment nor file sets: what one
// command shall do once must not come from what another is configured with.
const commandLineOnly = "command-line-only"

// FromCommandLine marks these flags as ones that only the command line sets.
func FromCommandLine(flags *pflag.FlagSet, names ...string) {
	for _, name := range names {
		flags.Lookup(name).Annotations = map[string][]string{commandLineOnly: nil}
	}
}

func onlyTyped(f *pflag.Flag) bool {
	_, is := f.Annotations[commandLineOnly]
	return is || f.Name == "help"
}

// Origin is where a value comes from.
type Origin string

// Origins, in the order of their precedence.
const (
	Flag        Origin = "flag"
	Environment Origin = "environment"
	FromFile    Origin = "file"
	Default     Origin = "default"
)

// Origins of flags, by name; one that is not in it has its default.
type Origins map[string]Origin

// Of returns the origin of a flag.
func (o Origins) Of(name string) Origin {
	if origin, set := o[name]; set {
		return origin
	}
	return Default
}

// Lay gives each flag that the command line left alone its value from its variable
// in the environment, or else from the file; the error says each mistake. Keys of
// flags that are not among these are passed over: see Check.
func Lay(flags *pflag.FlagSet, getenv func(string) string, file *File) (Origins, error) {
	origins := Origins{}
	var errs []error
	flags.VisitAll(func(f *pflag.Flag) {
		errs = append(errs, lay(flags, f, getenv, file, origins))
	})
	return origins, errors.Join(errs...)
}

func lay(flags *pflag.FlagSet, f *pflag.Flag, getenv func(string) string, file *File, origins Origins) error {
	if f.Changed {
		origins[f.Name] = Flag
		return nil
	}
	if onlyTyped(f) {
		return nil
	}
	variable := cli.Variable(f.Name)
	if value := getenv(variable); value != "" {
		origins[f.Name] = Environment
		if err := flags.Set(f.Name, value); err != nil {
			return fmt.Errorf("environment variable %s=%q: %w", variable, value, unwrapped(f, err))
		}
		return nil
	}
	for _, k := range file.keys {
		if k.name == f.Name {
			origins[f.Name] = FromFile
			return file.set(flags, f, k)
		}
	}
	return nil
}

// set gives a flag the file's value.
func (f *File) set(flags *pflag.FlagSet, flag *pflag.Flag, k key) error {
	list, repeatable := flag.Value.(pflag.SliceValue)
	switch {
	case k.value.Kind == yaml.MappingNode:
		return f.mistake(k.line, "%s: takes a value, and here is a section", k.name)
	case k.value.Kind == yaml.SequenceNode && !repeatable:
		return f.mistake(k.line, "%s: takes one value, and here is a list", k.name)
	case k.value.Kind == yaml.SequenceNode:
		var values []string
		for _, item := range k.value.Content {
			if item.Kind != yaml.ScalarNode || item.Tag == "!!null" {
				return f.mistake(item.Line, "%s: an item of the list is no plain value", k.name)
			}
			values = append(values, item.Value)
		}
		flag.Changed = true // as Set does
		if err := list.Replace(values); err != nil {
			return f.mistake(k.line, "%s: %w", k.name, err)
		}
		return nil
	case k.value.Tag == "!!null":
		return f.mistake(k.line, "%s: has no value: give one, or remove the line", k.name)
	}
	if err := flags.Set(flag.Name, k.value.Value); err != nil {
		return f.mistake(k.line, "%s: %q: %w", k.name, k.value.Value, unwrapped(flag, err))
	}
	return nil
}

// Misused says of a flag of the command line what is wrong with it, without quoting a
// parser of the language; other mistakes of the command line stay as they are.
func Misused(err error) error {
	e, ok := errors.AsType[*pflag.InvalidValueError](err)
	if !ok {
		return err
	}
	flag := "--" + e.GetFlag().Name
	if short := e.GetFlag().Shorthand; short != "" {
		flag = "-" + short + ", " + flag
	}
	return fmt.Errorf("invalid argument %q for %q flag: %w", e.GetValue(), flag, unwrapped(e.GetFlag(), err))
}

// unwrapped is what pflag wraps: "invalid argument … for … flag" repeats what a
// mistake says already, and of a switch it quotes the parser.
func unwrapped(f *pflag.Flag, err error) error {
	switch f.Value.Type() {
	case "bool":
		return errors.New("give true or false")
	case "uint64":
		return errors.New("give a whole number, like 3")
	}
	if e, ok := err.(*pflag.InvalidValueError); ok { //nolint:errorlint // pflag returns just this
		return e.Unwrap()
	}
	return err
}

// Check refuses keys that are no flag of any command, and those that only a command
// line can give, each of them; sets are the flags of all commands.
func (f *File) Check(sets []*pflag.FlagSet) error {
	var errs []error
	for _, k := range f.keys {
		known, settable := false, false
		for _, flags := range sets {
			if flag := flags.Lookup(k.name); flag != nil {
				known = true
				settable = settable || !onlyTyped(flag)
			}
		}
		switch {
		case k.name == "config":
			errs = append(errs, f.mistake(k.line, "config: a configuration file names no other: remove the line"))
		case settable:
		case known:
			errs = append(errs, f.mistake(k.line, "%s: says what one command does once, and so is given on its command line alone (--%s): remove the line", k.name, k.name))
		default:
			errs = append(errs, f.unknown(k, sets))
		}
	}
	return errors.Join(errs...)
}

func (f *File) unknown(k key, sets []*pflag.FlagSet) error {
	names := []string{Section}
	for _, flags := range sets {
		flags.VisitAll(func(flag *pflag.Flag) {
			if !onlyTyped(flag) {
				names = append(names, flag.Name)
			}
		})
	}
	slices.Sort(names)
	if meant := near.Word(strings.ReplaceAll(k.name, "_", "-"), names); meant != "" {
		return f.mistake(k.line, "%s: there is no such setting; did you mean %s?", k.name, meant)
	}
	return f.mistake(k.line, "%s: there is no such setting; settings are called as the flags in 'trustcast server --help'", k.name)
}

// Setting is one flag's value.
type Setting struct {
	Key, Value string
	Origin     Origin
}

// Settings lists what counts, in alphabetical order, without what only a command line gives.
func Settings(flags *pflag.FlagSet, origins Origins) []Setting {
	var list []Setting
	flags.VisitAll(func(f *pflag.Flag) {
		if onlyTyped(f) {
			return
		}
		s := Setting{Key: f.Name, Value: f.Value.String(), Origin: origins.Of(f.Name)}
		if s.Origin == Default {
			s.Value = DefaultOf(f)
		}
		list = append(list, s)
	})
	return list
}

// saidDefault is how a flag's usage names a default that is not its own.
var saidDefault = regexp.MustCompile(`\(default ([^()]+)\)$`)

// DefaultOf is a flag's default: its own, or else what its usage says that the
// server takes.
func DefaultOf(f *pflag.Flag) string {
	if said := saidDefault.FindStringSubmatch(f.Usage); said != nil {
		return said[1]
	}
	if f.DefValue == "[]" {
		return ""
	}
	return f.DefValue
}
