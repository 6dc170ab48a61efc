package agent

import (
	"bytes"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/trustcast/trustcast/certs"
)

// TestRingIsTakenUnderAnOldRevision: the server's record of the ring may be ahead
// of the revision that announces it, after a crash. Gossip is off here, which
// does not keep the ring from being acknowledged.
func TestRingIsTakenUnderAnOldRevision(t *testing.T) {
	t.Parallel()
	s, err := openStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	a := &membership{cfg: Config{}.withDefaults(), store: s}
	a.log = a.cfg.Log
	for version := range uint64(3) {
		o := offered{revision: 7, gossip: ring{Version: version, Keys: [][]byte{bytes.Repeat([]byte{byte(version)}, 32)}}}
		if err := a.accept(o, false); err != nil {
			t.Fatal(err)
		}
		var kept trusted
		if _, err := s.read(trustedFile, &kept); err != nil {
			t.Fatal(err)
		}
		if !kept.Gossip.same(o.gossip) {
			t.Errorf("version %d is kept, want %d", kept.Gossip.Version, version)
		}
		if said := a.report(certs.Evidence{}).GetGossipVersion(); said != version {
			t.Errorf("version %d is acknowledged, want %d", said, version)
		}
	}
}

// TestTakenGossipPort: on the server's own machine the server has it.
func TestTakenGossipPort(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	var log bytes.Buffer
	a := &membership{cfg: Config{GossipListen: taken.Addr().String()}.withDefaults(), ring: ring{Keys: [][]byte{bytes.Repeat([]byte{1}, 32)}}}
	a.enrolment.HostID, a.log = "host", slog.New(slog.NewTextHandler(&log, nil))
	a.link = newLink(a)
	a.startGossip()
	if a.gossip != nil || !strings.Contains(log.String(), "another one by --gossip-listen") {
		t.Errorf("gossip %v, log %s", a.gossip, &log)
	}
}
