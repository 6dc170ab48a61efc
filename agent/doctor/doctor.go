// Package doctor answers one question about a host: would its next pull from the
// registry work, and if not, why?
//
// It looks at what the runtimes would look at: the directory each really uses and
// everything in it, the engine's own settings, the way to the registry and what
// answers there. It is told what the agent knows, changes nothing, needs neither
// root nor a Docker socket, and ends within Limit.
//
// Fail means that the next pull of that runtime fails; Warn that pulls work now,
// unverified or not for long; a host that cannot follow rotations is a Warn.
package doctor

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/internal/gossip"
	"github.com/trustcast/trustcast/internal/printable"
)

const (
	// Limit bounds a whole examination.
	Limit = 10 * time.Second
	// stepLimit bounds each thing that is asked of the network, or of another program.
	stepLimit = 5 * time.Second
)

// State is how bad a finding is.
type State string

// The states, from good to bad.
const (
	OK   State = "ok"
	Warn State = "warn"
	Fail State = "fail"
)

// Check is one finding.
type Check struct {
	// ID says what was looked at, "group.thing"; scripts rely on it.
	ID    string
	State State
	// Subject is the file, the runtime or the address that it is about.
	Subject string
	// Text is what was seen, Fix what to do about it; "" when there is nothing to do.
	Text, Fix string
}

// Verdict is the worst state of checks.
func Verdict(checks []Check) State {
	worst := OK
	for _, c := range checks {
		if c.State == Fail || c.State == Warn && worst == OK {
			worst = c.State
		}
	}
	return worst
}

// Place is a directory of registry certificates that a runtime reads and the agent
// writes.
type Place struct {
	// Runtime is docker, rootless:USER, containers or containerd.
	Runtime string
	// Dir is the certs.d, such as /etc/docker/certs.d.
	Dir string
	// Before and After are others that it looks into, in this order: the first that
	// has a directory for the registry counts. After is "" for none.
	Before []string
	After  string
	// Home is that of the user whose place it is, otherwise "", with UID and GID: what
	// is below it is looked at with that user's rights.
	Home     string
	UID, GID int
}

// Manual is a runtime that the agent leaves alone.
type Manual struct{ Runtime, Why, Instructions string }

// Registry is what the agent of a host knows about one registry.
type Registry struct {
	// Names of the registry, the domain first.
	Names []certs.Name
	// Unseen is why this user cannot see whether the host has joined; nil when it is
	// known.
	Unseen error
	// Others are the domains that a host has joined which has not joined this one.
	Others []string
	// Joined: the rest is known.
	Joined bool
	// Server is HOST:PORT for agents, Fallback the registry's address where its
	// name does not resolve.
	Server, Fallback string
	// Peers are gossip's, GossipKeys its ring; without keys nobody is asked.
	Peers      []string
	GossipKeys [][]byte
	// Bundle accepted last, and the files that the agent has written.
	Bundle certs.Bundle
	Files  []string
	// Agent is what the agent says of itself.
	Agent Agent
}

// Agent is what an agent says of itself.
type Agent struct {
	DataDir            string
	Running, Connected bool
	// Gossip is ok, unreachable or off; GossipProblem is why it is off where it should
	// not be, GossipListen where it should listen then.
	Gossip, GossipProblem, GossipListen string
	Problem                             string
	LastSync                            time.Time
	// IdentityDue is when the identity is to be renewed, IdentityEnds when it ends.
	IdentityDue, IdentityEnds time.Time
}

// Config is what is examined. The zero value of everything but Registry and Places
// is this machine.
type Config struct {
	Registry Registry
	Places   []Place
	Manual   []Manual
	// Root is where the host's files are; "" is "/". Paths in Places and Registry
	// are used as they are.
	Root string
	// Home is that of the user who pulls without root; "" for none.
	Home string
	// Getenv is the environment of who asks; podman and the like have their proxy
	// from it. Nil: os.Getenv.
	Getenv func(string) string
	// As does something with a user's rights to files, whose homes may lead anywhere;
	// what it sets counts only when there is no error. Nil: with those of this process.
	As func(uid, gid int, do func() error) error
	// Dial opens connections; nil: net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Ping asks a member of gossip over "tcp" or "udp"; nil: gossip.Ping.
	Ping func(ctx context.Context, network, address string, keys [][]byte) error
	// Lookup resolves names; nil: the resolver of the system.
	Lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

func (c Config) withDefaults() Config {
	if c.Getenv == nil {
		c.Getenv = os.Getenv
	}
	if c.As == nil {
		c.As = func(_, _ int, do func() error) error { return do() }
	}
	if c.Dial == nil {
		c.Dial = (&net.Dialer{}).DialContext
	}
	if c.Ping == nil {
		c.Ping = gossip.Ping
	}
	if c.Lookup == nil {
		c.Lookup = net.DefaultResolver.LookupNetIP
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// at is a path of the host.
func (c Config) at(path string) string { return filepath.Join(c.Root, path) }

// exam is one examination. Its steps add findings in the order in which people read
// them.
type exam struct {
	Config
	engines map[string]engine // by program
	found   []Check
}

// add says a thing once: runtimes share directories.
func (e *exam) add(id string, state State, subject, fix, format string, args ...any) {
	// Names of files are others' words, and this is shown on a terminal.
	text := fmt.Sprintf(format, args...)
	c := Check{ID: id, State: state, Subject: printable.Clip(subject, len(subject)), Text: printable.Clip(text, len(text)), Fix: fix}
	if !slices.Contains(e.found, c) {
		e.found = append(e.found, c)
	}
}

func (e *exam) ok(id, subject, format string, args ...any) {
	e.add(id, OK, subject, "", format, args...)
}

// Examine looks at everything, within Limit.
func Examine(ctx context.Context, cfg Config) []Check {
	ctx, cancel := context.WithTimeout(ctx, Limit-time.Second)
	defer cancel()
	e := &exam{Config: cfg.withDefaults()}
	e.engines = e.findEngines()
	ways := e.explore(ctx)

	e.host()
	e.server(ways)
	e.settings()
	for _, n := range e.Registry.Names {
		e.network(n, ways.to[n])
		for _, r := range e.runtimes() {
			e.runtime(r, n, ways.to[n])
		}
	}
	e.room()
	e.restarts()
	return e.found
}

// runtime judges one runtime's next pull under one name.
func (e *exam) runtime(r runtime, n certs.Name, w way) {
	bypass := e.bypass(r, n, w)
	via := e.proxyOf(r, n)
	for _, dir := range n.Dirs() {
		used, c := "", &contents{}
		err := e.inHome(r.place, func(e *exam) { used, c = e.directory(r, dir, bypass != "") })
		if err != nil {
			e.add("files.unseen", Warn, r.title, "", "the files of %s cannot be looked at (%v)", r.title, err)
			continue
		}
		e.trust(r, n, used, c, w.through(via), bypass != "")
	}
	e.proxy(r, n, via, w.through(via))
}

// runtimes are those of the places, each once.
func (e *exam) runtimes() []runtime {
	var all []runtime
	for _, p := range e.Places {
		all = append(all, e.describe(p))
	}
	slices.SortStableFunc(all, func(a, b runtime) int { return cmp.Compare(a.rank(), b.rank()) })
	return all
}
