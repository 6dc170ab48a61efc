package server

import (
	"log/slog"
	"net"
	"time"

	"github.com/trustcast/trustcast/internal/gossip"
	"github.com/trustcast/trustcast/server/edge"
	"github.com/trustcast/trustcast/server/registry"
)

// InitConfig is what `trustcast init` fixes for the life of a registry.
type InitConfig struct {
	// DataDir takes all data of the server; made if missing. Default
	// /var/lib/trustcast is the command's, not this struct's.
	DataDir string
	// Domain is HOST[:PORT] as it stands in image names; port 5000 by default.
	// Example: "registry.example.com:5000".
	Domain string
	// Aliases are further HOST[:PORT] names; the port is the domain's by default.
	Aliases []string
	// Subject of the registry CAs, "C=DE,O=Example"; the common name is set by
	// trustcast and carries the generation. Default: O=trustcast.
	Subject string
	// User is the first user; empty: none, and every request gets 401.
	User string
	// Password of that user; empty: one is generated.
	Password string
	// CALife, LeafLife and ControlLife as in Config, where they count, too, unless
	// something else is said.
	CALife, LeafLife, ControlLife time.Duration
	// Adopt takes over a plain registry; the zero value makes a new one.
	Adopt AdoptConfig
	// EngineName is "embedded" (the default) or "docker", and counts for Config, too,
	// where nothing else is said.
	EngineName string
	// Volume is Docker's volume for all data, for the docker engine, made if missing:
	// DataDir becomes a link to where it is, unless it is that already.
	Volume string
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Config is everything that a running server can be told. The zero value of
// each field but DataDir works.
type Config struct {
	// DataDir was made by Init.
	DataDir string
	// Domain, if set, must be the data directory's: a guard against starting
	// on the wrong one.
	Domain string
	// Aliases, if set, must be among the data directory's: its CA is for no other.
	Aliases []string
	// Subject of the registry CAs that are made from now on; kept. Default: what Init,
	// or a start since, was told.
	Subject string
	// User that Init would have made; one that is not there is a warning.
	User string

	// RegistryListen is where the edge listens. Default: all addresses, port
	// of the domain.
	RegistryListen string
	// GRPCListen is where agents connect. Default ":7443".
	GRPCListen string
	// GossipListen is for members, TCP and UDP. Default ":7947"; "off" turns
	// gossip off. A port that is taken is a warning, never fatal.
	GossipListen string
	// HTTPListen is for health and metrics. Default "127.0.0.1:7480"; "off"
	// turns it off.
	HTTPListen string
	// Pprof serves Go's profiles on the same port, which has to be on loopback then:
	// a profile of the heap may hold secrets. Default: not served.
	Pprof bool
	// Advertise is the HOST[:PORT] that agents dial, printed in join lines and
	// sent to agents for the case that the domain does not resolve. Default:
	// the domain's host and the port of GRPCListen.
	Advertise string

	// GossipEvery is gossip.Config.ProbeEvery. Default 1 s; simulations of
	// months take hours.
	GossipEvery time.Duration
	// Keepalive is after how long without traffic an agent is asked whether it
	// is still there, which finds dead connections; agents may ask twice as
	// often. Default 30 s.
	Keepalive time.Duration

	// Tick is how often agents report and re-check; evidence older than two
	// ticks counts for nothing. Default 60 s: 1,000 agents then cost a
	// thousandth of a core.
	Tick time.Duration
	// GoneAfter is how long a host may give no sign before it is gone.
	// Default 10 min.
	GoneAfter time.Duration
	// Deadline is how long gone hosts are waited for after each step of a
	// rotation. Default 10 min.
	Deadline time.Duration

	// CALife of registry CAs. Default: what Init was told, or one year; replaced at
	// two thirds.
	CALife time.Duration
	// LeafLife of served certificates. Default: what Init was told, or 30 days;
	// replaced at two thirds.
	LeafLife time.Duration
	// ControlLife of the control CA's certificate. Default: what Init was told, or ten
	// years; re-issued with the same key at half.
	ControlLife time.Duration
	// ServerIdentityLife of what agents know this server by. Default 30 days;
	// replaced at two thirds.
	ServerIdentityLife time.Duration
	// IdentityLife of host identities. Default 90 days; replaced at two thirds.
	IdentityLife time.Duration
	// RotateWindow is when automatic CA rotations may start, "HH:MM-HH:MM" in
	// UTC. Default: always.
	RotateWindow string

	// EngineName is "embedded" or "docker". Default: what Init was told.
	EngineName string
	// Volume is Docker's volume that holds DataDir; for the docker engine alone.
	// Default: what Init was told.
	Volume string
	// Image of the docker engine's replicas. Default "registry:3".
	Image string
	// Network that the docker engine's replicas are in, for storage elsewhere.
	// Default: none at all.
	Network string
	// Replicas is how many of them there shall be. Default 1.
	Replicas int
	// MinFree is below how many free bytes pushes get 507. Default 1 GiB;
	// negative: they never do.
	MinFree int64
	// HoldLimit is how long a request waits while the registry is paused, or while
	// no replica answers, before it gets 503. Default: edge.Config's.
	HoldLimit time.Duration
	// Engine replaces the one that is named: a registry of the caller's.
	Engine registry.Engine
	// Registry are the operator's parameters for the embedded engine. Default: none.
	Registry RegistryParameters
	// Settings are what `trustcast config show` prints of this server: all that
	// counts and where it came from. Default: nothing.
	Settings []Setting
	// Log takes transitions. Default: discard.
	Log *slog.Logger
	// Version of the program, for status.
	Version string

	// GiveMemoryBack: the process is this server's alone, and the system gets back what
	// it does not use, see internal/memory. Default: Go's own ways.
	GiveMemoryBack bool

	// Sockets are open listeners by SocketNames, which are taken instead of opening those
	// of RegistryListen, GRPCListen and HTTPListen; Run closes them. Default: none.
	Sockets map[string]net.Listener
	// Supervisor hears how the server is. Default: nobody.
	Supervisor Supervisor

	// Listen opens stream listeners; tests give an in-memory network.
	// Default net.Listen.
	Listen func(network, address string) (net.Listener, error)
	// GossipTransport replaces UDP and TCP in tests.
	GossipTransport gossip.Transport
}

// minFree is MinFree as the edge has it.
func (cfg Config) minFree() uint64 {
	switch {
	case cfg.MinFree < 0:
		return 0
	case cfg.MinFree == 0:
		return edge.DefaultMinFree
	}
	return uint64(cfg.MinFree)
}

// Defaults of Config; the reasons stand there.
const (
	defaultTick     = 60 * time.Second
	defaultGone     = 10 * time.Minute
	defaultDeadline = 10 * time.Minute
	defaultCALife   = 365 * 24 * time.Hour
	defaultLeafLife = 30 * 24 * time.Hour

	defaultKeepalive = 30 * time.Second // finds dead connections (DESIGN §7)

	defaultGRPC   = ":7443"
	defaultGossip = ":7947"
	defaultHTTP   = "127.0.0.1:7480"

	off = "off"
)

func (cfg Config) withDefaults() Config {
	cfg.Tick = orDefault(cfg.Tick, defaultTick)
	cfg.GoneAfter = orDefault(cfg.GoneAfter, defaultGone)
	cfg.Deadline = orDefault(cfg.Deadline, defaultDeadline)
	cfg.Keepalive = orDefault(cfg.Keepalive, defaultKeepalive)
	cfg.GRPCListen = orDefault(cfg.GRPCListen, defaultGRPC)
	cfg.GossipListen = orDefault(cfg.GossipListen, defaultGossip)
	cfg.HTTPListen = orDefault(cfg.HTTPListen, defaultHTTP)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Listen == nil {
		cfg.Listen = net.Listen
	}
	return cfg
}

// withLives gives certificates the lives that neither a start nor Init was told.
func (cfg Config) withLives() Config {
	cfg.CALife = orDefault(cfg.CALife, defaultCALife)
	cfg.LeafLife = orDefault(cfg.LeafLife, defaultLeafLife)
	return cfg
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}
