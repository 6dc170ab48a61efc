package parameters

import (
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// hidden stands for a secret.
const hidden = "(secret)"

// Shown is one value that counts, for people.
type Shown struct {
	// Key is the path in the configuration file, "registry." and parts joined by dots.
	Key string
	// Value as it is written; "(secret)" for a secret.
	Value string
	// Origin is "environment", "file" or "default".
	Origin string
	// Where is the variable, or the file and line; empty for a default.
	Where string
}

// Shown returns all values that count, in the order in which they were written.
func (s *Set) Shown() []Shown {
	var list []Shown
	s.show(s.root, "", &list)
	if at(s.root, "http.secret") == nil {
		list = append(list, Shown{Key: keyPath("http.secret"), Value: hidden, Origin: "default"})
	}
	return list
}

func (s *Set) show(n *yaml.Node, path string, list *[]Shown) {
	switch {
	case n.Kind == yaml.MappingNode && len(n.Content) > 0:
		for i := 0; i < len(n.Content); i += 2 {
			s.show(n.Content[i+1], join(path, n.Content[i].Value), list)
		}
	case n.Kind == yaml.SequenceNode && len(n.Content) > 0:
		for i, item := range n.Content {
			s.show(item, path+"."+strconv.Itoa(i), list)
		}
	case path != "":
		*list = append(*list, s.shown(n, path))
	}
}

func (s *Set) shown(n *yaml.Node, path string) Shown {
	v := Shown{Key: keyPath(path), Value: n.Value, Origin: "file", Where: s.where(n)}
	if o, other := s.from[n]; other {
		if v.Origin, v.Where = "environment", o.variable; o.variable == "" {
			v.Origin = "default"
		}
	}
	switch {
	case n.Kind == yaml.MappingNode:
		v.Value = "{}"
	case n.Kind == yaml.SequenceNode:
		v.Value = "[]"
	case isSecret(v.Key):
		v.Value = hidden
	default:
		v.Value = WithoutPassword(n.Value)
	}
	return v
}

// SecretsInFile says that the section holds secrets, so that others must not read
// the file.
func (s *Set) SecretsInFile() bool {
	for _, v := range s.Shown() {
		if v.Origin == "file" && (v.Value == hidden || strings.Contains(v.Value, hidden)) {
			return true
		}
	}
	return false
}

// secretWords are in the last part of keys whose values are secrets, in the
// parameters of distribution's drivers as well; publicKeys are the exceptions.
var (
	secretWords = []string{"secret", "password", "token", "accesskey", "accountkey", "privatekey", "credential"}
	publicKeys  = []string{"registry.redis.tls.key"} // a file's name
)

// isSecret says whether the value of a key's path is a secret: "registry." and parts
// joined by dots.
func isSecret(path string) bool {
	lower := strings.ToLower(path)
	for _, public := range publicKeys {
		if lower == public {
			return false
		}
	}
	// Headers of requests that the registry makes sign it in.
	if strings.Contains(lower, ".headers.") && !strings.HasPrefix(lower, "registry.http.headers.") {
		return true
	}
	for part := range strings.SplitSeq(strings.TrimPrefix(lower, section+"."), ".") {
		for _, word := range secretWords {
			if strings.Contains(part, word) {
				return true
			}
		}
	}
	return false
}

// userinfo is who signs in, in a URL.
var userinfo = regexp.MustCompile(`://[^/\s"]*@`)

// WithoutPassword hides who signs in, in the URLs of a text.
func WithoutPassword(text string) string { return userinfo.ReplaceAllString(text, "://"+hidden+"@") }
