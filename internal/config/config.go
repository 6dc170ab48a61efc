// Package config gives a command's flags their values: from the command line, else
// from the environment, else from the configuration file, else the default. One
// name counts in all of them.
//
// It knows no flag and no command. The section for the registry's own parameters it
// finds and hands on, unread.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"go.yaml.in/yaml/v3"
)

const (
	// DefaultPath is read when it exists and no other file is named.
	DefaultPath = "/etc/trustcast/config.yaml"
	// Off in place of a path reads no file.
	Off = "off"
	// Section is the key of the registry's own parameters.
	Section = "registry"

	// largest file that is read: a thousand times what one has.
	largest = 4 << 20
)

// File is a configuration file. The zero value is one with nothing in it.
type File struct {
	// Path it was read from; empty: there was none.
	Path string
	// Registry is the text of the section for the registry, with its lines where they
	// are in the file; nil: there is no such section.
	Registry []byte
	// Public says that every user of the machine can read it.
	Public bool
	// Closed says that DefaultPath is there, and that this user may not read it.
	Closed bool

	keys []key // as they stand in the file
}

// key is one setting of a file.
type key struct {
	name  string
	line  int
	value *yaml.Node
}

// Find reads the file of this path; an empty one is DefaultPath if that exists and this
// user may read it, and Off is none.
func Find(path string) (*File, error) {
	switch path {
	case Off:
		return &File{}, nil
	case "":
		if _, err := os.Stat(DefaultPath); errors.Is(err, fs.ErrNotExist) {
			return &File{}, nil
		}
		f, err := Read(DefaultPath)
		if errors.Is(err, fs.ErrPermission) {
			return &File{Closed: true}, nil
		}
		return f, err
	}
	return Read(path)
}

// Read reads a file, which must be a regular one, and not huge. An error says where
// the mistake is.
func Read(path string) (*File, error) {
	text, mode, err := read(path)
	if err != nil {
		return nil, fmt.Errorf("the configuration file %s cannot be read: %w; give another with --config, or --config off for none", path, err)
	}
	f := &File{Path: path, Public: mode&0o004 != 0}
	if err := f.parse(text); err != nil {
		return nil, err
	}
	return f, nil
}

func read(path string) ([]byte, fs.FileMode, error) {
	// Without waiting: a pipe would do so for a writer.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, cause(err)
	}
	defer func() { _ = file.Close() }() // read-only
	info, err := file.Stat()
	switch {
	case err != nil:
		return nil, 0, cause(err)
	case !info.Mode().IsRegular():
		return nil, 0, errors.New("it is no regular file")
	}
	text, err := io.ReadAll(io.LimitReader(file, largest+1))
	if err == nil && len(text) > largest {
		err = fmt.Errorf("it has more than %d MiB", largest>>20)
	}
	return text, info.Mode(), cause(err)
}

// cause is an error without the path, which the caller says.
func cause(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

// mistake is an error at a line of the file.
func (f *File) mistake(line int, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %w", f.Path, line, fmt.Errorf(format, args...))
}

func (f *File) parse(text []byte) error {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil // nothing is in it
	case err != nil:
		return fmt.Errorf("%s: no YAML: %s", f.Path, wrong(err))
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: there is more after the end of the first document ('---'): keep one", f.Path)
	}
	top := doc.Content[0]
	switch {
	case top.Tag == "!!null":
		return nil
	case top.Kind != yaml.MappingNode || top.Style&yaml.FlowStyle != 0:
		return f.mistake(top.Line, "a configuration file has a setting a line, like 'listen: :5000'")
	}
	return f.take(top.Content, strings.SplitAfter(string(text), "\n"))
}

// wrong is what YAML says, but for the name of an alias: it may be a password that begins
// with an asterisk.
func wrong(err error) string {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if strings.HasPrefix(text, "unknown anchor") {
		return "anchors and aliases are not read here: put what begins with * in quotes"
	}
	return text
}

// take notes the settings: keys and values by turns.
func (f *File) take(nodes []*yaml.Node, lines []string) error {
	seen := map[string]int{}
	for i := 0; i+1 < len(nodes); i += 2 {
		name, value := nodes[i], nodes[i+1]
		if name.Kind != yaml.ScalarNode || name.Tag == "!!merge" {
			return f.mistake(name.Line, "a setting's name is one word, like listen")
		}
		if first, twice := seen[name.Value]; twice {
			return f.mistake(name.Line, "%s: stands on line %d already: remove one", name.Value, first)
		}
		seen[name.Value] = name.Line
		switch {
		case value.Kind == yaml.AliasNode || value.Anchor != "":
			return f.mistake(value.Line, "%s: anchors and aliases are not read here: write the value out", name.Value)
		case name.Value != Section:
			f.keys = append(f.keys, key{name.Value, name.Line, value})
		case value.Tag != "!!null":
			end := len(lines)
			if i+2 < len(nodes) {
				end = nodes[i+2].Line - 1
			}
			f.Registry = cut(lines, value, end)
		}
	}
	return nil
}

// cut is the text of a value that ends before line number end, with all that comes
// before it made blank.
func cut(lines []string, value *yaml.Node, end int) []byte {
	var text strings.Builder
	text.WriteString(strings.Repeat("\n", value.Line-1))
	first := []rune(lines[value.Line-1])
	before := min(value.Column-1, len(first))
	text.WriteString(strings.Repeat(" ", before))
	text.WriteString(string(first[before:]))
	for _, line := range lines[value.Line:max(end, value.Line)] {
		text.WriteString(line)
	}
	return []byte(text.String())
}
