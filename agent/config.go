package agent

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/trustcast/trustcast/internal/gossip"
)

// Config is everything that an agent can be told.
type Config struct {
	// DataDir keeps identity and last-good state (0700) of each membership: the
	// first one's are in it, further ones in DataDir/registries/SERVER. The
	// command's default is /var/lib/trustcast-agent.
	DataDir string
	// Server is the HOST:PORT to join; only needed with a token, remembered
	// afterwards.
	Server string
	// Token is a join token; ignored with an identity of that server present.
	Token string
	// AwaitJoin has Run wait for a Join where it would say that this machine has
	// not joined a fleet.
	AwaitJoin bool
	// Name is the wanted host name. Default: the system's host name.
	Name string
	// DockerCertsDir is where Docker looks. Default /etc/docker/certs.d below Root.
	DockerCertsDir string
	// Runtimes to install for, see install.Places; nil: Docker alone. Only Run and
	// Join heed it; others take what it was then.
	Runtimes []string
	// Root is where other runtimes are looked for; "": "/". Tests give a directory.
	Root string
	// GossipListen is for this member, TCP and UDP. Default ":7947"; "off"
	// turns gossip off. A port that is taken is a warning, never fatal. The nth
	// further membership listens on the nth port after it.
	GossipListen string
	// GossipEvery is gossip.Config.ProbeEvery. Default 1 s; simulations of
	// months take hours.
	GossipEvery time.Duration
	// Keepalive is after how long without traffic the server is asked whether
	// it is still there. The server's must be at most twice this, or it hangs
	// up on an agent that asks too often. Default 30 s.
	Keepalive time.Duration
	// Log takes transitions. Default: discard.
	Log *slog.Logger
	// Version of the program, for the server's status.
	Version string

	// Dial opens stream connections; tests give an in-memory network.
	// Default: net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// GossipTransport replaces UDP and TCP in tests.
	GossipTransport gossip.Transport
	// WatchFile wakes the agent when something happens in a directory; nil:
	// fsnotify. It returns when ctx ends.
	WatchFile func(ctx context.Context, dir string, changed func()) error
	// Resting is called when the agent has had nothing to do for a few seconds, and
	// again every 30 s until it has. The command gives memory back then, so that
	// no garbage is collected while work waits. Default: nothing.
	Resting func()
	// Ready is called once, when Run has put the last-good state of every membership
	// on disk, or has failed to: it waits for no server, unless Run joins. Default:
	// nothing.
	Ready func()
	// Serves is called before Ready and with each change: so many registries are kept
	// right. Default: nothing.
	Serves func(registries int)
	// Alive is called every 5 s, or every AliveEvery where that is less, while every
	// membership's loop turns. One that has not for a minute ends that. Default: nothing.
	Alive      func()
	AliveEvery time.Duration
	// Layers turns single ways of propagation off; for tests.
	Layers Layers
	// Now is the clock; nil: time.Now. Tests of clock skew set it.
	Now func() time.Time

	// home is the data directory of the agent that DataDir, a membership's, is in;
	// "" when there is no other.
	home string
}

// Layers says which ways of propagation are off. The zero value has all on.
type Layers struct{ NoStream, NoGossip, NoPoll bool }

// Defaults of Config.
const (
	defaultGossip    = ":7947"
	defaultKeepalive = 30 * time.Second // finds dead connections (DESIGN §7)

	off = "off"
)

func (cfg Config) withDefaults() Config {
	if cfg.DockerCertsDir == "" {
		cfg.DockerCertsDir = filepath.Join("/", cfg.Root, "etc/docker/certs.d")
	}
	if cfg.GossipListen == "" {
		cfg.GossipListen = defaultGossip
	}
	if cfg.Keepalive == 0 {
		cfg.Keepalive = defaultKeepalive
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{KeepAliveConfig: signsOfLife}).DialContext
	}
	if cfg.AliveEvery <= 0 || cfg.AliveEvery > aliveEvery {
		cfg.AliveEvery = aliveEvery
	}
	if cfg.WatchFile == nil {
		cfg.WatchFile = watchDir
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Name == "" {
		cfg.Name = defaultName()
	}
	return cfg
}

func defaultName() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return hostName(name)
}

// hostName makes a host name of a system's name.
func hostName(system string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '.', r == '-':
			return r
		}
		return '-'
	}, system)
	return name[:min(63, len(name))]
}
