package parameters

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// ownKeys are the keys that trustcast sets itself, in the order in which they are
// looked for, and what to use instead.
var ownKeys = []struct{ path, instead string }{
	{"auth", "trustcast signs users in: see 'trustcast user add'"},
	{"http.addr", "trustcast listens for the registry: give --listen"},
	{"http.net", "trustcast listens for the registry: give --listen"},
	{"http.tls", "trustcast serves TLS with certificates of its own CA: give the names with --domain and --alias, and their life with --leaf-life"},
	{"http.host", "links carry the name that the client used: name it with --domain or --alias"},
	{"http.prefix", "Docker asks at the root of a name, and so must the registry: there is nothing to give instead"},
	{"http.debug", "it opens a port with secrets on it: health and metrics are at --http-listen"},
	{"http.http2", "clients speak to trustcast, which speaks HTTP/1.1 to the registry: there is nothing to give instead"},
	{"http.h2c", "clients speak to trustcast, which speaks HTTP/1.1 to the registry: there is nothing to give instead"},
	{"http.draintimeout", "trustcast drains a replica before it stops it: there is nothing to give instead"},
	{"storage.filesystem.rootdirectory", "all data is in one place: give --data-dir, or --volume with --engine docker"},
}

// embeddedOwned are those that make no sense in a program with a log of its own.
var embeddedOwned = []struct{ path, instead string }{
	{"log.formatter", "the registry writes into trustcast's log: give --log-format"},
	{"log.hooks", "the registry writes into trustcast's log: let what reads that send mail"},
	{"log.reportcaller", "the registry writes into trustcast's log, without callers: remove it"},
}

// owned refuses what is trustcast's by name.
func (r *reading) owned() error {
	list := ownKeys
	if !r.opts.docker() {
		list = slices.Concat(ownKeys, embeddedOwned)
	}
	for _, o := range list {
		if n := at(r.root, o.path); n != nil {
			r.mistake(r.writtenAt(n), o.path, "is trustcast's own; %s", o.instead)
		}
	}
	return r.done()
}

// writtenAt is the node that says best where a section was written: the first of its
// values.
func (r *reading) writtenAt(n *yaml.Node) *yaml.Node {
	for n.Kind != yaml.ScalarNode && len(n.Content) > 0 {
		n = n.Content[min(1, len(n.Content)-1)]
	}
	return n
}

// Defaults, those of distribution unless it says otherwise.
const (
	// pageSize of catalogs and tag lists.
	pageSize = 1000
	// purgeAge is how old an upload is when it is taken for abandoned, and
	// purgeEvery is how often such are removed.
	purgeAge   = 7 * 24 * time.Hour
	purgeEvery = 24 * time.Hour
)

// complete adds the defaults that count here, as if the operator had written them.
func (r *reading) complete() error {
	if r.driver() == "" {
		r.byDefault("storage."+filesystem, mapping())
	}
	// A registry of a team is cleaned up by it; distribution's default is false.
	r.byDefault("storage.delete.enabled", plainly("true"))
	r.byDefault("storage.maintenance.uploadpurging.enabled", plainly("true"))
	r.byDefault("storage.maintenance.uploadpurging.age", plainly(hours(purgeAge)))
	r.byDefault("storage.maintenance.uploadpurging.interval", plainly(hours(purgeEvery)))
	r.byDefault("storage.maintenance.uploadpurging.dryrun", plainly("false"))
	r.byDefault("catalog.maxentries", plainly(fmt.Sprint(pageSize)))
	r.byDefault("tags.maxtags", plainly(fmt.Sprint(pageSize)))
	if child(child(r.root, "storage"), "redirect") != nil {
		r.byDefault("storage.redirect.disable", plainly("false"))
	}
	if at(r.root, "loglevel") != nil { // the name of long ago
		if at(r.root, "log.level") == nil {
			put(r.root, "log.level", at(r.root, "loglevel"))
		}
		drop(r.root, "loglevel")
	}
	r.byDefault("log.level", plainly("warn"))
	if r.opts.docker() && r.driver() == filesystem && at(r.root, "proxy.remoteurl") != nil {
		r.byDefault("proxy.ttl", plainly("0s")) // replicas write nothing beside the images, where it would be kept what is to be removed
	}
	if r.opts.docker() { // the edge counts requests
		r.byDefault("log.accesslog.disabled", plainly("true"))
	}
	drop(r.root, "version")
	return nil
}

func (r *reading) byDefault(path string, n *yaml.Node) {
	if at(r.root, path) == nil {
		r.stamp(n, origin{})
		put(r.root, path, n)
	}
}

func hours(d time.Duration) string { return fmt.Sprintf("%.0fh", d.Hours()) }

// besides are the keys below storage that are no drivers.
var besides = []string{"maintenance", "cache", "delete", "redirect", "tag"}

// driver is the storage driver; empty: none was named.
func (s *Set) driver() string {
	if names := s.driversNamed(); len(names) > 0 {
		return names[0]
	}
	return ""
}

// driversNamed are all that were named, of which one can be used.
func (s *Set) driversNamed() []string {
	storage := child(s.root, "storage")
	if storage == nil || storage.Kind != yaml.MappingNode {
		return nil
	}
	var names []string
	for i := 0; i < len(storage.Content); i += 2 {
		if key := storage.Content[i].Value; !slices.Contains(besides, key) {
			names = append(names, key)
		}
	}
	return names
}

// drivers names those that can be used.
func (r *reading) drivers() string {
	if r.opts.docker() {
		return strings.Join(slices.Concat(embeddedDrivers, imageDrivers), ", ")
	}
	return strings.Join(embeddedDrivers, ", ")
}

// filesystem is the storage driver of an operator who names none.
const filesystem = "filesystem"

// embeddedDrivers are linked into this program; s3aws is another name of s3.
// imageDrivers are in official images alone.
var (
	embeddedDrivers = []string{filesystem, "inmemory", "s3", "s3aws"}
	imageDrivers    = []string{"azure", "gcs", "swift", "oss"}
)
