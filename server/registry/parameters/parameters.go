// Package parameters reads what the operator says of the registry itself: the
// configuration of distribution, from the section "registry" of the configuration
// file and from REGISTRY_ variables. It finds every mistake before distribution does,
// which panics about some and passes over others, and makes from it what an embedded
// registry and a replica in a container start with. It never looks at the
// environment or at a network by itself.
package parameters

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"go.yaml.in/yaml/v3"
)

// section is what the operator's parameters are below in the configuration file,
// and what the paths of keys begin with in errors and listings.
const section = "registry"

// Options say what the parameters are for. The zero value is one embedded
// registry.
type Options struct {
	// File that the section stands in, for errors. Default: "the registry section".
	File string
	// Engine is "embedded" or "docker". Default: embedded.
	Engine string
	// Network says that replicas of Docker reach a network (--registry-network).
	Network bool
	// Replicas is how many run side by side. Default: 1.
	Replicas int
}

func (o Options) docker() bool { return o.Engine == "docker" }

// Set is a set of parameters, checked: distribution starts with them, or says that
// something outside of them is wrong (a file, a host). It does not change.
type Set struct {
	opts Options
	// root is a mapping without nulls, aliases or what trustcast owns; it has the
	// defaults that count here.
	root *yaml.Node
	// from is where the nodes come from that are not the section's.
	from     map[*yaml.Node]origin
	warnings []string
}

// origin of a value: a variable, or else a default of this program.
type origin struct{ variable string }

// Parse reads the parameters: text, in distribution's own configuration
// format (the YAML of the section alone; lines are counted from its first), under
// the REGISTRY_ variables of environ ("NAME=value" as in os.Environ). Nothing else
// looks at the environment. An error has a line for each mistake, with the file's
// line or the variable, the path of the key, and what to do.
func Parse(text []byte, environ []string, opts Options) (*Set, error) {
	if opts.File == "" {
		opts.File = "the " + section + " section"
	}
	r := &reading{Set: &Set{opts: opts, from: map[*yaml.Node]origin{}}, empty: map[*yaml.Node][]*yaml.Node{}}
	for _, step := range []func() error{
		func() error { return r.parse(text) },
		func() error { return r.overlay(environ) },
		r.owned,
		r.shape,
		r.complete,
		r.rules,
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return r.Set, nil
}

// Warnings are for the operator: what was passed over, and why.
func (s *Set) Warnings() []string { return slices.Clone(s.warnings) }

// StorageDriver is what keeps the blobs: "filesystem" (in the data directory),
// "inmemory" (lost with each replica), "s3" or another of the image's.
func (s *Set) StorageDriver() string { return s.driver() }

// BlobCache is where the registry remembers which blobs exist: "" (nowhere),
// "inmemory" or "redis". A collection must end with new replicas when it is
// inmemory, and cannot be done behind a redis: what it removed would be taken for
// existing.
func (s *Set) BlobCache() string {
	if v := s.text("storage.cache.blobdescriptor"); v != "" {
		return v
	}
	return s.text("storage.cache.layerinfo")
}

// Purge is how abandoned uploads are removed.
type Purge struct {
	Enabled bool
	// Age from which on an upload is abandoned.
	Age time.Duration
	// Every is the time between two purges.
	Every time.Duration
	// DryRun finds them and removes nothing.
	DryRun bool
}

// Purge is how abandoned uploads are removed. The server purges, no replica does:
// several would do the same work.
func (s *Set) Purge() Purge {
	const at = "storage.maintenance.uploadpurging."
	return Purge{
		Enabled: s.flag(at + "enabled"), DryRun: s.flag(at + "dryrun"),
		Age: s.duration(at + "age"), Every: s.duration(at + "interval"),
	}
}

// Configuration returns what an embedded distribution starts with, made anew, since
// distribution changes it: the blobs are under root unless the operator chose another
// driver, and secret signs uploads unless the operator chose one.
func (s *Set) Configuration(root, secret string) (*configuration.Configuration, error) {
	tree := clone(s.root)
	if s.driver() == filesystem {
		put(tree, "storage.filesystem.rootdirectory", quoted(root))
	}
	put(tree, "version", quoted(string(configuration.CurrentVersion)))
	if at(tree, "http.secret") == nil {
		put(tree, "http.secret", quoted(secret))
	}
	// The engine purges: distribution would start that in a constructor.
	put(tree, "storage.maintenance.uploadpurging", mapping("enabled", plainly("false")))
	c, err := decode(tree)
	if err != nil {
		return nil, fmt.Errorf("the registry's configuration: %w", err)
	}
	return c, nil
}

// File returns the complete config.yml of a replica in a container: the blobs are
// under root there unless the operator chose another driver, it listens on the Unix
// socket alone, and secret signs uploads unless the operator chose one. The text
// holds secrets. registry:2 and registry:3 read it; registry:2 passes over what it
// does not know.
func (s *Set) File(root, secret, socket string) ([]byte, error) {
	switch {
	case socket == "":
		return nil, errors.New("the registry's configuration: there is no socket for the replica to listen on")
	case strings.ContainsAny(root+socket, "\x00\n"):
		return nil, errors.New("the registry's configuration: a path holds a line break")
	}
	tree := clone(s.root)
	if s.driver() == filesystem {
		put(tree, "storage.filesystem.rootdirectory", quoted(root))
	}
	put(tree, "version", plainly(string(configuration.CurrentVersion)))
	put(tree, "http.net", quoted("unix"))
	put(tree, "http.addr", quoted(socket))
	if at(tree, "http.secret") == nil {
		put(tree, "http.secret", quoted(secret))
	}
	put(tree, "storage.maintenance.uploadpurging", mapping("enabled", plainly("false")))
	if _, err := decode(tree); err != nil {
		return nil, fmt.Errorf("the registry's configuration: %w", err)
	}
	return yaml.Marshal(tree)
}
