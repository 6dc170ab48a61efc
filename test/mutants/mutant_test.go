package mutants

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// root of the module, seen from this package.
const root = "../.."

// mutant is one way to break the program. Its file has, each on a line of its own
// and in this order: comments (# ...) that say which promise it breaks; `prove:`
// if only slow tests catch it; for each change `file:`, `find:` and `replace:`;
// and `tests:` with a package and the name of a test. The texts of find and
// replace stand behind the colon or on the lines below it; a change without
// `file:` is in the file of the one before.
type mutant struct {
	name    string
	promise string
	prove   bool
	changes []change
	tests   []test
}

type change struct{ file, find, replace string }

// test is one that must fail: a package's path and a name, with the subtest's
// behind a slash.
type test struct{ pkg, name string }

// keys of a mutant's file.
var keys = []string{"prove", "file", "find", "replace", "tests"}

func readMutants() ([]mutant, error) {
	files, err := filepath.Glob("testdata/*.mutant")
	if err != nil {
		return nil, err
	}
	var all []mutant
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		m, err := parse(strings.TrimSuffix(filepath.Base(file), ".mutant"), string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		all = append(all, m)
	}
	return all, nil
}

func parse(name, text string) (mutant, error) {
	m := mutant{name: name}
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	for len(lines) > 0 {
		if comment, ok := strings.CutPrefix(lines[0], "#"); ok {
			m.promise = strings.TrimSpace(m.promise + comment)
			lines = lines[1:]
			continue
		}
		key, value, ok := strings.Cut(lines[0], ":")
		if !ok || !slices.Contains(keys, key) {
			return m, fmt.Errorf("%q is none of %v", lines[0], keys)
		}
		value = strings.TrimSpace(value)
		lines = lines[1:]
		if value == "" {
			end := slices.IndexFunc(lines, isKey)
			if end < 0 {
				end = len(lines)
			}
			value, lines = strings.Join(lines[:end], "\n"), lines[end:]
		}
		if err := m.set(key, value); err != nil {
			return m, err
		}
	}
	if m.promise == "" || len(m.changes) == 0 || len(m.tests) == 0 {
		return m, fmt.Errorf("it has %d changes, %d tests and says %q: it needs some of each", len(m.changes), len(m.tests), m.promise)
	}
	return m, nil
}

func isKey(line string) bool {
	key, _, ok := strings.Cut(line, ":")
	return ok && slices.Contains(keys, key)
}

func (m *mutant) set(key, value string) error {
	last := len(m.changes) - 1
	switch key {
	case "prove":
		m.prove = true
	case "file":
		m.changes = append(m.changes, change{file: value})
	case "find":
		switch {
		case last < 0 || value == "":
			return fmt.Errorf("find %q: in which file?", value)
		case m.changes[last].find != "":
			m.changes = append(m.changes, change{file: m.changes[last].file})
			last++
		}
		m.changes[last].find = value
	case "replace":
		if last < 0 || m.changes[last].find == "" {
			return fmt.Errorf("replace %q: what?", value)
		}
		m.changes[last].replace = value
	case "tests":
		pkg, name, ok := strings.Cut(value, " ")
		if !ok {
			return fmt.Errorf("tests: %q is not a package and a name", value)
		}
		m.tests = append(m.tests, test{pkg: pkg, name: strings.TrimSpace(name)})
	}
	return nil
}

// overlay writes the changed files into dir, and the list that the go command
// reads; it returns that list's path.
func (m mutant) overlay(dir string) (string, error) {
	sources := map[string]string{}
	for _, c := range m.changes {
		if _, read := sources[c.file]; !read {
			source, err := os.ReadFile(filepath.Join(root, c.file))
			if err != nil {
				return "", fmt.Errorf("it no longer applies: %w", err)
			}
			sources[c.file] = string(source)
		}
		if n := strings.Count(sources[c.file], c.find); n != 1 {
			return "", fmt.Errorf("it no longer applies: %s has this %d times, want once; adapt the mutant:\n%s", c.file, n, c.find)
		}
		sources[c.file] = strings.Replace(sources[c.file], c.find, c.replace, 1)
	}
	var list struct{ Replace map[string]string }
	list.Replace = map[string]string{}
	for file, source := range sources {
		from, err := filepath.Abs(filepath.Join(root, file))
		if err != nil {
			return "", err
		}
		list.Replace[from] = filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(list.Replace[from], []byte(source), 0o600); err != nil {
			return "", err
		}
	}
	data, err := json.Marshal(list)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "overlay.json")
	return path, os.WriteFile(path, data, 0o600)
}
