package agent

import (
	"context"
	"log/slog"
	"net"
	"time"

	"github.com/trustcast/trustcast/internal/gossip"
)

// Config is everything that an agent can be told.
type Config struct {
	// DataDir keeps identity and last-good state (0700). The command's default
	// is /var/lib/trustcast-agent.
	DataDir string
	// Server is the HOST:PORT to join; only needed with a token, remembered
	// afterwards.
	Server string
	// Token is a join token; ignored with an identity present.
	Token string
	// Name is the wanted host name. Default: the system's host name.
	Name string
	// DockerCertsDir is where Docker looks. Default /etc/docker/certs.d.
	DockerCertsDir string
	// GossipListen is for this member, TCP and UDP. Default ":7947"; "off"
	// turns gossip off. A port that is taken is a warning, never fatal.
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
	// Layers turns single ways of propagation off; for tests.
	Layers Layers
	// Now is the clock; nil: time.Now. Tests of clock skew set it.
	Now func() time.Time
}

// Layers says which ways of propagation are off. The zero value has all on.
type Layers struct{ NoStream, NoGossip, NoPoll bool }
