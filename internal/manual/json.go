package manual

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"time"
)

// Key is one key of what -o json prints.
type Key struct {
	// Path is like hosts[].name; "[]" is an item of the list that is printed.
	Path string
	// Type is in words of JSON.
	Type    string
	Meaning string
}

// Comments are those of the fields of types, by "type.Field".
type Comments map[string]string

// ReadComments reads them from the Go files of directories.
func ReadComments(dirs ...string) (Comments, error) {
	var files []string
	for _, dir := range dirs {
		names, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			return nil, err
		}
		files = append(files, names...)
	}
	all := Comments{}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, is := n.(*ast.TypeSpec)
			if !is {
				return true
			}
			if of, is := spec.Type.(*ast.StructType); is {
				all.take(spec.Name.Name, of)
			}
			return false
		})
	}
	return all, nil
}

func (c Comments) take(name string, of *ast.StructType) {
	for _, field := range of.Fields.List {
		text := field.Doc.Text()
		if text == "" {
			text = field.Comment.Text()
		}
		for _, id := range field.Names {
			c[name+"."+id.Name] = strings.Join(strings.Fields(text), " ")
		}
	}
}

// snake is what a key looks like.
var snake = regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)

// Keys lists the keys of a value of this shape, in the order in which they are
// printed. An error if one is not in snake_case, may be left out, or can be anything.
func Keys(shape any, comments Comments) ([]Key, error) {
	return keys(reflect.TypeOf(shape), "", "", comments)
}

func keys(t reflect.Type, path, meaning string, comments Comments) ([]Key, error) {
	switch {
	case t == reflect.TypeFor[*time.Time]():
		return []Key{{path, "time or null", meaning}}, nil
	case t.Kind() == reflect.Pointer && t.Elem().Kind() == reflect.Struct:
		below, err := keys(t.Elem(), path, "", comments)
		return append([]Key{{path, "object or null", meaning}}, below...), err
	case t.Kind() == reflect.Slice:
		return listed(t, path, meaning, comments)
	case t.Kind() == reflect.Struct:
		return fields(t, path, comments)
	case t.Kind() == reflect.String:
		return []Key{{path, "string", meaning}}, nil
	case t.Kind() == reflect.Bool:
		return []Key{{path, "boolean", meaning}}, nil
	case t.Kind() >= reflect.Int && t.Kind() <= reflect.Float64:
		return []Key{{path, "number", meaning}}, nil
	}
	return nil, fmt.Errorf("%s: a %v has no keys that could be told", path, t)
}

func listed(t reflect.Type, path, meaning string, comments Comments) ([]Key, error) {
	below, err := keys(t.Elem(), path+"[]", meaning, comments)
	if len(below) == 1 && below[0].Path == path+"[]" {
		return []Key{{path, "list of " + below[0].Type + "s", meaning}}, err
	}
	return append([]Key{{path, "list of objects", meaning}}, below...), err
}

func fields(t reflect.Type, path string, comments Comments) ([]Key, error) {
	var all []Key
	for field := range t.Fields() {
		key := field.Tag.Get("json")
		if field.Anonymous && key == "" { // its keys stand among the others
			below, err := keys(field.Type, path, "", comments)
			if err != nil {
				return nil, err
			}
			all = append(all, below...)
			continue
		}
		if !snake.MatchString(key) {
			return nil, fmt.Errorf("%v.%s: the key %q is not snake_case, or may be left out", t, field.Name, key)
		}
		meaning := comments[t.Name()+"."+field.Name]
		meaning = strings.TrimPrefix(meaning, field.Name+" ")
		meaning = strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(meaning, "is "), "are "), ".")
		inner := strings.TrimPrefix(path+"."+key, ".")
		below, err := keys(field.Type, inner, meaning, comments)
		if err != nil {
			return nil, err
		}
		all = append(all, below...)
	}
	return all, nil
}

// Printed is what a command prints with -o json.
type Printed struct {
	// Command is like "trustcast host ls".
	Command string
	// Shapes are values of the types that it may print, one of them at a time.
	Shapes []any
}

// JSON is the reference of keys. An error if a command does not say what it prints.
func JSON(commands []Printed, comments Comments) (string, error) {
	var b strings.Builder
	for _, c := range commands {
		if len(c.Shapes) == 0 {
			return "", fmt.Errorf("%s has -o and does not say what it prints: give output() a value of that type", c.Command)
		}
		fmt.Fprintf(&b, "## %s\n\n", c.Command)
		for i, shape := range c.Shapes {
			if i > 0 {
				b.WriteString("\nor:\n\n")
			}
			all, err := Keys(shape, comments)
			if err != nil {
				return "", fmt.Errorf("%s: %w", c.Command, err)
			}
			b.WriteString("| key | type | meaning |\n| --- | --- | --- |\n")
			for _, k := range all {
				path := k.Path
				if path == "" {
					path = "."
				}
				fmt.Fprintf(&b, "| %s | %s | %s |\n", code(path), k.Type, cell(k.Meaning))
			}
		}
		b.WriteString("\n")
	}
	return b.String(), nil
}
