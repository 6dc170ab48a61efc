package parameters

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/distribution/distribution/v3/configuration"
	"go.yaml.in/yaml/v3"

	"github.com/trustcast/trustcast/internal/near"
)

// variablePrefix of distribution's environment variables.
const variablePrefix = "REGISTRY_"

// overlay puts the variables over the section as distribution does: REGISTRY_A_B is
// the key b of a, named by distribution's fields, and its value is YAML; those with
// a longer name come later. Distribution's own parser cannot be used: it reads the
// environment by itself, and what it makes of a section below storage.maintenance
// ends in a panic.
func (r *reading) overlay(environ []string) error {
	for _, variable := range slices.Sorted(slices.Values(environ)) {
		name, value, _ := strings.Cut(variable, "=")
		rest, ours := strings.CutPrefix(name, variablePrefix)
		if !ours {
			continue
		}
		if err := r.variable(name, strings.Split(rest, "_"), value); err != nil {
			r.mistakes = append(r.mistakes, fmt.Errorf("environment variable %s: %w", name, err))
		}
	}
	return r.done()
}

// variable sets what one variable says.
func (r *reading) variable(name string, parts []string, value string) error {
	t := reflect.TypeFor[configuration.Configuration]()
	if _, _, known := field(t, parts[0]); !known {
		return r.foreign(name, parts[0])
	}
	n, err := document([]byte(value))
	if err != nil {
		return err
	}
	if n == nil {
		n = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null"}
	}
	r.stamp(n, origin{name})
	before := len(r.mistakes)
	r.simple(n, strings.ToLower(strings.Join(parts, ".")), 0)
	if len(r.mistakes) > before {
		return nil // noted
	}
	return r.place(t, r.root, parts, n)
}

// foreign says what to do about a variable of no parameter. Others have variables
// with this prefix, too, like Kubernetes for each service that is called registry.
func (r *reading) foreign(name, part string) error {
	if name == "REGISTRY_CONFIGURATION_PATH" {
		return fmt.Errorf("the registry's configuration is the %s section of trustcast's own file: move it there, give that file with --config, and unset the variable", section)
	}
	names := fieldNames(reflect.TypeFor[configuration.Configuration](), func(f reflect.StructField, _ string) string { return strings.ToUpper(f.Name) })
	if meant := near.Word(part, names); meant != "" {
		return fmt.Errorf("the registry has no parameter %s; did you mean %s%s? correct or unset it", part, variablePrefix, meant)
	}
	r.warnings = append(r.warnings, fmt.Sprintf("environment variable %s is passed over: the registry has no parameter %s", name, part))
	return nil
}

// stamp notes where a tree comes from.
func (s *Set) stamp(n *yaml.Node, o origin) {
	s.from[n] = o
	for _, below := range n.Content {
		s.stamp(below, o)
	}
}

// place sets the value at the variable's parts below n, which is of type t.
func (r *reading) place(t reflect.Type, n *yaml.Node, parts []string, value *yaml.Node) error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t.Kind() == reflect.Struct:
		key, below, known := field(t, parts[0])
		if !known {
			names := fieldNames(t, func(f reflect.StructField, _ string) string { return strings.ToUpper(f.Name) })
			return fmt.Errorf("there is no %s in it; it takes %s", parts[0], suggest(parts[0], names))
		}
		return r.descend(below, n, key, parts[1:], value)
	case t.Kind() == reflect.Map || t.Kind() == reflect.Interface && n.Kind == yaml.MappingNode:
		key := strings.ToLower(parts[0])
		for i := 0; i < len(n.Content); i += 2 {
			if strings.EqualFold(n.Content[i].Value, key) {
				key = n.Content[i].Value
			}
		}
		return r.descend(element(t), n, key, parts[1:], value)
	case t.Kind() == reflect.Slice || t.Kind() == reflect.Interface && n.Kind == yaml.SequenceNode:
		return r.placeItem(element(t), n, parts, value)
	}
	return fmt.Errorf("what stands before %s has no parts: it is one value", parts[0])
}

// descend goes on at a mapping's key, or sets it when the parts are over.
func (r *reading) descend(t reflect.Type, n *yaml.Node, key string, rest []string, value *yaml.Node) error {
	if len(rest) == 0 {
		if value.Tag == "!!null" {
			drop(n, key)
			return nil
		}
		set(n, key, value)
		return nil
	}
	next := child(n, key)
	if next != nil && next.Kind == yaml.ScalarNode && t == reflect.TypeFor[configuration.Storage]() {
		next = r.named(next)
		set(n, key, next)
	}
	if next == nil || next.Kind == yaml.ScalarNode && !scalar(t) {
		next = vessel(t)
		r.from[next] = r.from[value]
		set(n, key, next)
	}
	return r.place(t, next, rest, value)
}

// placeItem goes on at a list's item, of which one more than there are can be named.
func (r *reading) placeItem(t reflect.Type, n *yaml.Node, parts []string, value *yaml.Node) error {
	i, err := strconv.Atoi(parts[0])
	if err != nil || i < 0 || i > len(n.Content) {
		return fmt.Errorf("%s is none of the list's numbers: there are %d items, counted from 0, and the next can be added", parts[0], len(n.Content))
	}
	if len(parts) == 1 {
		if value.Tag == "!!null" {
			return fmt.Errorf("item %d has no value: give one, or unset the variable", i)
		}
		n.Content = append(n.Content[:i], append([]*yaml.Node{value}, n.Content[min(i+1, len(n.Content)):]...)...)
		return nil
	}
	if i == len(n.Content) || n.Content[i].Kind == yaml.ScalarNode && !scalar(t) {
		next := vessel(t)
		r.from[next] = r.from[value]
		n.Content = append(n.Content[:i], next)
	}
	return r.place(t, n.Content[i], parts[1:], value)
}

// vessel is an empty value of a type that has parts.
func vessel(t reflect.Type) *yaml.Node {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() == reflect.Slice {
		return &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
	}
	return mapping()
}

func scalar(t reflect.Type) bool {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.Struct, reflect.Map, reflect.Slice, reflect.Interface:
		return false
	}
	return true
}

// element is the type of what a map, a slice or an any holds.
func element(t reflect.Type) reflect.Type {
	if t.Kind() == reflect.Interface {
		return t
	}
	return t.Elem()
}

// named turns the name of a driver into the section that it stands for.
func (r *reading) named(n *yaml.Node) *yaml.Node {
	empty := mapping()
	m := mapping(n.Value, empty)
	m.Line, empty.Line = n.Line, n.Line
	if o, other := r.from[n]; other {
		r.stamp(m, o)
	}
	return m
}
