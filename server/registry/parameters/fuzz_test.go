package parameters

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"
)

// starts opens what parameters say, as the server would, where that asks no network.
func starts(t interface {
	Fatalf(string, ...any)
}, s *Set, root string) {
	c, err := s.Configuration(root, "secret")
	if err != nil {
		t.Fatalf("accepted, and then: %v", err)
	}
	file, err := s.File("/var/lib/registry", "secret", "/run/r.sock")
	if err != nil {
		t.Fatalf("accepted, and then: %v", err)
	}
	if _, err := configuration.Parse(strings.NewReader(string(file))); err != nil {
		t.Fatalf("%v in\n%s", err, file)
	}
	c.Proxy = configuration.Proxy{} // asks the other registry
	for _, m := range c.Middleware["storage"] {
		if m.Name == "cloudfront" {
			return // asks Amazon
		}
	}
	defer func() {
		if p := recover(); p != nil {
			t.Fatalf("accepted, and distribution panics: %v\n%s", p, file)
		}
	}()
	_ = handlers.NewApp(context.Background(), c).Shutdown()
}

// FuzzParse looks for texts that are accepted and then panic.
func FuzzParse(f *testing.F) {
	for _, o := range overlays {
		f.Add(o.text, o.variable)
	}
	f.Add("storage: {maintenance: {uploadpurging: {enabled: true, age: 1h}}}", "REGISTRY_STORAGE_MAINTENANCE_UPLOADPURGING_AGE=2h")
	f.Add("storage: {s3: {bucket: b, region: eu-west-1}}", "REGISTRY_HEALTH_HTTPCHECKERS_0_URI=http://x")
	f.Add("middleware: {storage: [{name: rewrite, options: {scheme: https}}]}", "")
	root := f.TempDir()
	f.Fuzz(func(t *testing.T, text, variable string) {
		for _, engine := range []string{"embedded", "docker"} {
			s, err := Parse([]byte(text), []string{variable}, Options{Engine: engine, Network: true})
			if err == nil && engine == "embedded" {
				starts(t, s, root)
			}
			if err == nil {
				s.Shown()
			}
		}
	})
}

// Whatever is written below distribution's own keys is refused with the path of a
// key, or starts.
func TestGenerated(t *testing.T) {
	root := t.TempDir()
	accepted, refused := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		n := generate(t, reflect.TypeFor[configuration.Configuration](), 0)
		text, err := yaml.Marshal(n)
		if err != nil {
			t.Skip(err)
		}
		s, err := Parse(text, nil, Options{})
		if err != nil {
			refused++
			if !strings.Contains(err.Error(), "registry") {
				t.Fatalf("the error names no key: %v\n%s", err, text)
			}
			return
		}
		accepted++
		starts(t, s, root)
	})
	t.Logf("%d accepted, %d refused", accepted, refused)
	if accepted == 0 || refused == 0 {
		t.Error("the generator makes only one kind")
	}
}

// words that values are made of: what keys take, and what they do not.
var words = []string{"true", "false", "off", "0", "1", "-1", "1.5", "1e3", "99999999999", "10s", "-5s", "168h", "inmemory", "redis", "text", "info", "mail", "all", "list",
	"https://h/p", "http://u:p@h", "h:1", "/a/b", "(", `\Qa`, "redirect", "rewrite", "eu-west-1", "STANDARD", "", "~"}

// generate writes a few of a type's keys.
func generate(t *rapid.T, of reflect.Type, depth int) *yaml.Node {
	for of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	if of == reflect.TypeFor[configuration.Storage]() {
		of = reflect.TypeFor[storageShape]()
	}
	if rapid.IntRange(0, 60).Draw(t, "odd") == 0 || depth > 6 {
		return plainly(rapid.SampledFrom(words).Draw(t, "word"))
	}
	switch {
	case of == reflect.TypeFor[configuration.Auth](), of.Kind() == reflect.Interface, scalar(of):
		return fitting(t, of)
	case of.Kind() == reflect.Slice:
		n := &yaml.Node{Kind: yaml.SequenceNode}
		for range rapid.IntRange(0, 2).Draw(t, "items") {
			n.Content = append(n.Content, generate(t, of.Elem(), depth+1))
		}
		return n
	case of.Kind() == reflect.Map:
		return mapping(rapid.SampledFrom([]string{"a", "baseurl", "scheme", "storage", "X-Y"}).Draw(t, "key"), generate(t, of.Elem(), depth+1))
	}
	n := mapping()
	eachField(of, func(f reflect.StructField, key string) {
		if f.Name != "Auth" && rapid.IntRange(0, 4).Draw(t, "take") == 0 && at(ownedTree, fmt.Sprintf("%d.%s", depth, key)) == nil {
			set(n, key, generate(t, f.Type, depth+1))
		}
	})
	return n
}

// ownedTree has keys that would make each second text one that is refused at once.
var ownedTree = func() *yaml.Node {
	n := mapping()
	for _, o := range ownKeys {
		parts := strings.Split(o.path, ".")
		put(n, fmt.Sprintf("%d.%s", len(parts)-1, parts[len(parts)-1]), mapping())
	}
	return n
}()

// fitting is mostly of the type.
func fitting(t *rapid.T, of reflect.Type) *yaml.Node {
	switch {
	case rapid.IntRange(0, 15).Draw(t, "misfit") == 0:
		return plainly(rapid.SampledFrom(words).Draw(t, "word"))
	case of.Kind() == reflect.Bool:
		return plainly(rapid.SampledFrom([]string{"true", "false", "yes", `"true"`}).Draw(t, "bool"))
	case of.String() == "time.Duration":
		return plainly(rapid.SampledFrom([]string{"1s", "5m", "0s", "-1s"}).Draw(t, "duration"))
	case integer(of):
		return plainly(rapid.SampledFrom([]string{"0", "1", "50", "0x10", "5242880"}).Draw(t, "number"))
	case of.Kind() == reflect.String:
		return plainly(rapid.SampledFrom(words).Draw(t, "text"))
	}
	return plainly(rapid.SampledFrom(words).Draw(t, "any"))
}
