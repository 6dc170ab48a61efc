package cli_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// keys are those that a command prints with -o json: their types, by path.
type keys map[string]string

// reference is docs/reference/json.md: what each command may print, one of these at a time.
var reference = sync.OnceValue(func() map[string][]keys {
	text, err := os.ReadFile(filepath.Join(sources, "docs", "reference", "json.md"))
	if err != nil {
		panic(err)
	}
	all := map[string][]keys{}
	command := ""
	key := regexp.MustCompile("^\\| `([^`]+)` \\| ([^|]+) \\|")
	for line := range strings.Lines(string(text)) {
		if name, is := strings.CutPrefix(line, "## "); is {
			command = strings.TrimSpace(name)
		}
		if strings.HasPrefix(line, "| key |") {
			all[command] = append(all[command], keys{})
		}
		if m := key.FindStringSubmatch(line); m != nil {
			all[command][len(all[command])-1][m[1]] = m[2]
		}
	}
	return all
})

// conformed are the commands whose output was compared with the reference.
var conformed sync.Map

// conform says what is wrong with what a command printed, if it was to print JSON: it
// has the keys of the reference, all of them and no other, of their types.
func conform(args []string, stdout []byte) error {
	at := slices.Index(args, "-o")
	if at < 0 || at+1 >= len(args) || args[at+1] != "json" || len(stdout) == 0 || slices.Contains(args, "-q") {
		return nil
	}
	command := commandOf(args)
	if command == "" {
		return fmt.Errorf("docs/reference/json.md does not have the command of %v", args)
	}
	dec := json.NewDecoder(bytes.NewReader(stdout))
	for values := 0; ; values++ {
		var v any
		if err := dec.Decode(&v); errors.Is(err, io.EOF) && values > 0 {
			conformed.Store(command, true)
			return nil
		} else if err != nil {
			return fmt.Errorf("%v: no JSON on stdout: %w", args, err)
		}
		if values == 1 && command != "trustcast registry logs" {
			return fmt.Errorf("%v: more than one value on stdout", args)
		}
		if err := likeOne(reference()[command], v); err != nil {
			return fmt.Errorf("%v is not as docs/reference/json.md says: %w", args, err)
		}
	}
}

// commandOf finds the command in the reference.
func commandOf(args []string) string {
	var words []string
	for _, arg := range args {
		if !strings.HasPrefix(arg, "-") {
			words = append(words, arg)
		}
	}
	for n := len(words); n > 0; n-- {
		if command := strings.Join(words[:n], " "); reference()[command] != nil {
			return command
		}
	}
	return ""
}

func likeOne(shapes []keys, v any) error {
	var errs []error
	for _, want := range shapes {
		left := maps.Clone(want)
		err := errors.Join(compare(want, left, "", v)...)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("missing: %v", slices.Sorted(maps.Keys(left)))
		}
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// compare takes from left what is there, or could not be.
func compare(want, left keys, path string, v any) []error {
	name := path
	if name == "" {
		name = "."
	}
	kind := want[name]
	delete(left, name)
	below := func() {
		for key := range left {
			if path == "" || strings.HasPrefix(key, path+".") || strings.HasPrefix(key, path+"[") {
				delete(left, key)
			}
		}
	}
	var errs []error
	switch v := v.(type) {
	case nil:
		if !strings.HasSuffix(kind, "or null") {
			errs = append(errs, fmt.Errorf("%s is null", name))
		}
		below()
	case map[string]any:
		if kind != "" && !strings.Contains(kind, "object") {
			errs = append(errs, fmt.Errorf("%s is an object", name))
		}
		for key, child := range v {
			errs = append(errs, compare(want, left, strings.TrimPrefix(path+"."+key, "."), child)...)
		}
	case []any:
		if !strings.HasPrefix(kind, "list of ") {
			errs = append(errs, fmt.Errorf("%s is a list", name))
		}
		for _, item := range v {
			if item, is := item.(map[string]any); is {
				errs = append(errs, compare(want, left, path+"[]", item)...)
			}
		}
		if len(v) == 0 {
			below()
		}
	default:
		errs = append(errs, plainly(kind, name, v))
	}
	return errs
}

// plainly compares a value that has no others in it.
func plainly(kind, name string, v any) error {
	got := "number"
	switch v := v.(type) {
	case bool:
		got = "boolean"
	case string:
		got = "string"
		if kind == "time or null" {
			if at, err := time.Parse(time.RFC3339, v); err != nil || at.Location() != time.UTC || !strings.HasSuffix(v, "Z") {
				return fmt.Errorf("%s is %q, which is no time in UTC", name, v)
			}
			return nil
		}
	}
	if got != kind {
		return fmt.Errorf("%s is a %s, not a %q", name, got, kind)
	}
	return nil
}

// allConformed: each command that prints JSON was run by a script. With only some of
// the scripts there is nothing to say.
func allConformed(t *testing.T) {
	if t.Failed() || strings.Contains(flag.Lookup("test.run").Value.String(), "/") || t.Skipped() {
		return
	}
	for command := range reference() {
		if _, done := conformed.Load(command); !done {
			t.Errorf("no script runs '%s -o json'", command)
		}
	}
}

// TestConform: what is not as the reference says is noticed.
func TestConform(t *testing.T) {
	args := []string{"trustcast", "host", "rm", "web-1", "-o", "json"}
	for printed, ok := range map[string]bool{
		`{"id":"1","name":"web-1"}`:           true,
		`{"id":"1"}`:                          false,
		`{"id":"1","name":null}`:              false,
		`{"id":1,"name":"web-1"}`:             false,
		`{"id":"1","name":"web-1","x":false}`: false,
		`{"id":"1","name":"web-1"} {}`:        false,
		`removed`:                             false,
	} {
		if err := conform(args, []byte(printed)); (err == nil) != ok {
			t.Errorf("%s: %v", printed, err)
		}
	}
	if err := conform([]string{"trustcast", "token", "ls", "-o", "json"}, []byte(`[{"id":"1"}]`)); err == nil {
		t.Error("what an item lacks is not noticed")
	}
	if err := conform([]string{"trustcast", "token", "ls", "-o", "json"}, []byte(`[{"id":"1","state":"valid","host":"","uses":0,"used":0,"created":"2026-11-30T02:00:00+01:00","expires":null}]`)); err == nil {
		t.Error("a time of another zone is not noticed")
	}
	conformed.Delete("trustcast host rm")
}
