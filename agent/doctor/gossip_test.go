package doctor

import (
	"bytes"
	"context"
	"testing"

	"github.com/trustcast/trustcast/internal/gossip"
)

// TestGossip: what is said of a real member whose TCP or UDP does not arrive, and of
// one that has other keys. None of it is more than a warning.
func TestGossip(t *testing.T) {
	t.Parallel()
	ring, other := [][]byte{bytes.Repeat([]byte{1}, 32)}, [][]byte{bytes.Repeat([]byte{2}, 32)}
	m, err := gossip.Start(gossip.Config{Name: "server", Listen: "127.0.0.1:0", Keys: ring})
	must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	t.Cleanup(func() {
		if len(m.Members()) > 0 {
			t.Errorf("who asked is a member: %v", m.Members())
		}
		stop()
		must(t, <-ended)
	})
	for _, c := range []struct {
		name  string
		lost  map[string]bool
		keys  [][]byte
		state State
		text  string
	}{
		{"both", nil, ring, OK, "gossip answers over TCP and UDP"},
		{"no UDP", map[string]bool{"udp": true}, ring, Warn, "answers over TCP, but not over UDP (away)"},
		{"no TCP", map[string]bool{"tcp": true}, ring, Warn, "answers over UDP, but not over TCP (away)"},
		{"neither", map[string]bool{"tcp": true, "udp": true}, ring, Warn, "cannot be reached (away)"},
		{"other keys", nil, other, Warn, "has other keys than this host"},
		{"no keys", nil, nil, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.Registry.Peers, s.Registry.GossipKeys = []string{m.Address()}, c.keys
			s.Ping = func(ctx context.Context, network, address string, keys [][]byte) error {
				if c.lost[network] {
					return errAway
				}
				return gossip.Ping(ctx, network, address, keys)
			}
			f := s.examine()
			if Verdict(f) == Fail || c.state != "" && !f.has("network.gossip", c.state, c.text) {
				t.Errorf("want %s %q:\n%v", c.state, c.text, f)
			}
			said := 0
			for _, check := range f {
				if check.ID == "network.gossip" {
					said++
				}
			}
			if said > 1 || said == 1 && c.state == "" {
				t.Errorf("said %d times:\n%v", said, f)
			}
		})
	}
}
