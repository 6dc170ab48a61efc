package parameters

import (
	"slices"
	"strings"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	yaml2 "go.yaml.in/yaml/v2"
	"go.yaml.in/yaml/v3"
)

// deepest nesting of a configuration; distribution's own ends at seven.
const deepest = 32

// Nodes are read with YAML v3, which knows their lines, and their values with v2,
// which distribution reads with: off is false there. A scalar is handed over as it
// is written, so that both see the same text.

// child returns the value of a mapping's key; nil: it is not there.
func child(n *yaml.Node, key string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// at returns the value of a path, parts joined by dots; nil: it is not there.
func at(n *yaml.Node, path string) *yaml.Node {
	for key := range strings.SplitSeq(path, ".") {
		n = child(n, key)
	}
	return n
}

// put sets the value of a path and makes the mappings on the way.
func put(n *yaml.Node, path string, value *yaml.Node) {
	key, rest, deeper := strings.Cut(path, ".")
	if !deeper {
		set(n, key, value)
		return
	}
	next := child(n, key)
	if next == nil {
		next = mapping()
		set(n, key, next)
	}
	put(next, rest, value)
}

// set replaces or adds a mapping's key.
func set(n *yaml.Node, key string, value *yaml.Node) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			n.Content[i+1] = value
			return
		}
	}
	n.Content = append(n.Content, quoted(key), value)
}

// drop removes a mapping's key.
func drop(n *yaml.Node, key string) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			n.Content = slices.Delete(n.Content, i, i+2)
			return
		}
	}
}

// mapping makes one of this key and value.
func mapping(keyAndValue ...any) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	for i := 0; i+1 < len(keyAndValue); i += 2 {
		n.Content = append(n.Content, quoted(keyAndValue[i].(string)), keyAndValue[i+1].(*yaml.Node))
	}
	return n
}

// quoted is a text, whatever it looks like; plainly is a value as it is written.
func quoted(s string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Style: yaml.DoubleQuotedStyle, Value: s}
}

func plainly(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Value: s} }

// clone copies a tree without comments.
func clone(n *yaml.Node) *yaml.Node {
	c := &yaml.Node{Kind: n.Kind, Tag: n.Tag, Style: n.Style &^ yaml.FlowStyle, Value: n.Value}
	for _, below := range n.Content {
		c.Content = append(c.Content, clone(below))
	}
	return c
}

// written is a tree as v2 and distribution read it.
func written(n *yaml.Node) ([]byte, error) { return yaml.Marshal(clone(n)) }

// into reads a tree as distribution does.
func into(n *yaml.Node, v any) error {
	text, err := written(n)
	if err != nil {
		return err
	}
	return yaml2.UnmarshalStrict(text, v)
}

func decode(n *yaml.Node) (*configuration.Configuration, error) {
	c := new(configuration.Configuration)
	return c, into(n, c)
}

// text is a scalar's value; empty when it is not there.
func (s *Set) text(path string) string {
	if n := at(s.root, path); n != nil && n.Kind == yaml.ScalarNode {
		return n.Value
	}
	return ""
}

// flag and duration read what shape and complete have checked.
func (s *Set) flag(path string) (v bool) {
	if n := at(s.root, path); n != nil {
		_ = into(n, &v) // checked by shape
	}
	return v
}

func (s *Set) duration(path string) (d time.Duration) {
	if n := at(s.root, path); n != nil {
		_ = into(n, &d) // checked by shape
	}
	return d
}
