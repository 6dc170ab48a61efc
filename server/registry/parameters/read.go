package parameters

import (
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// reading is a Parse under way.
type reading struct {
	*Set
	mistakes []error
	// empty are the keys without a value, by their mapping: they are as if they were
	// not there, but for those that are no keys at all.
	empty map[*yaml.Node][]*yaml.Node
}

// mistake notes one, at the node that holds it.
func (r *reading) mistake(n *yaml.Node, path, format string, args ...any) {
	r.mistakes = append(r.mistakes, fmt.Errorf("%s: %s: %w", r.where(n), keyPath(path), fmt.Errorf(format, args...)))
}

// done returns the mistakes until here as one error.
func (r *reading) done() error { return errors.Join(r.mistakes...) }

// where says where a value was written.
func (s *Set) where(n *yaml.Node) string {
	if o, other := s.from[n]; other && o.variable != "" {
		return "environment variable " + o.variable
	}
	if n == nil || n.Line == 0 {
		return s.opts.File
	}
	return fmt.Sprintf("%s:%d", s.opts.File, n.Line)
}

// keyPath is a path as the operator writes it in the file.
func keyPath(path string) string {
	if path == "" {
		return section
	}
	return section + "." + path
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// parse reads the section.
func (r *reading) parse(text []byte) error {
	n, err := document(text)
	if err != nil {
		return fmt.Errorf("%s: %w", r.opts.File, err)
	}
	if n == nil || n.Tag == "!!null" {
		n = mapping()
	}
	if n.Kind != yaml.MappingNode {
		r.mistake(n, "", "holds the registry's own configuration, like 'storage: {delete: {enabled: true}}', and not %s", kindOf(n))
		return r.done()
	}
	r.simple(n, "", 0)
	r.root = n
	return r.done()
}

// document returns the top of a YAML text; nil: there is nothing in it.
func document(text []byte) (*yaml.Node, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		text := strings.TrimPrefix(err.Error(), "yaml: ")
		if strings.HasPrefix(text, "unknown anchor") { // and its name, which may be a password that begins with an asterisk
			text = "anchors and aliases are not read here: put what begins with * in quotes"
		}
		return nil, errors.New("no YAML: " + text)
	}
	if len(doc.Content) == 0 {
		return nil, nil
	}
	return doc.Content[0], nil
}

// simple makes a tree one of mappings, sequences and scalars alone: what was written
// by reference or twice is a mistake, and a key without a value is as if it was not
// there.
func (r *reading) simple(n *yaml.Node, path string, depth int) {
	switch {
	case depth > deepest:
		r.mistake(n, path, "is nested too deeply: %d levels at most", deepest)
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		r.mistake(n, path, "anchors and aliases are not read here: write the value out")
	case n.Style&yaml.TaggedStyle != 0:
		r.mistake(n, path, "tags are not read here: put what begins with ! in quotes") // it may be a password
	case n.Kind == yaml.MappingNode:
		r.simpleMapping(n, path, depth)
	case n.Kind == yaml.SequenceNode:
		for i, item := range n.Content {
			if item.Tag == "!!null" {
				r.mistake(item, fmt.Sprintf("%s.%d", path, i), "has no value: give one, or remove the item")
			}
			r.simple(item, fmt.Sprintf("%s.%d", path, i), depth+1)
		}
	}
}

func (r *reading) simpleMapping(n *yaml.Node, path string, depth int) {
	seen := map[string]bool{}
	kept := n.Content[:0:0]
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case key.Kind != yaml.ScalarNode || key.Tag == "!!merge":
			r.mistake(key, path, "has a key that is no word: write the keys out")
			continue
		case seen[key.Value]:
			r.mistake(key, join(path, key.Value), "stands there twice: remove one")
		}
		seen[key.Value] = true
		if value.Tag == "!!null" && value.Kind == yaml.ScalarNode {
			if path != "storage" {
				r.empty[n] = append(r.empty[n], key)
				continue
			}
			empty := mapping() // a driver without parameters
			empty.Line = key.Line
			if o, other := r.from[value]; other {
				r.from[empty] = o
			}
			value = empty
		}
		r.simple(value, join(path, key.Value), depth+1)
		kept = append(kept, key, value)
	}
	n.Content = kept
}

// kindOf is what a node is, for people.
func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a section"
	case yaml.SequenceNode:
		return "a list"
	default:
		return "one value"
	}
}
