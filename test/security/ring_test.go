package security

import (
	"context"
	"slices"
	"testing"
	"time"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server"
)

func (w *world) rollKey() {
	w.t.Helper()
	w.must(func(ctx context.Context, c pb.AdminServiceClient) error {
		_, err := c.RollGossipKey(ctx, &pb.RollGossipKeyRequest{})
		return err
	})
}

// TestSilentHostHoldsNoRoll: a connected host that never confirms the ring is
// named, and holds each step for the deadline and no longer; one that confirms
// versions that do not exist is no different.
func TestSilentHostHoldsNoRoll(t *testing.T) {
	t.Parallel()
	for name, version := range map[string]uint64{"silent": 0, "boasting": 1 << 63} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const deadline = 2 * time.Second
			w := start(t, func(_ *server.InitConfig, cfg *server.Config) { cfg.Deadline = deadline })
			h := w.rawHost(name)
			s := w.sync(&h.pair)
			defer time.AfterFunc(patience, s.cancel).Stop()
			s.report(&pb.Report{GossipVersion: version})
			first := s.wanted().GetGossip()
			until(t, "the host counts as connected", func() bool { return w.host(name).GetConnected() })
			began := time.Now()
			w.rollKey()
			until(t, "it is waited for", func() bool {
				ring := w.status().GetGossipRing()
				return ring.GetStep() == "installing" && slices.Contains(ring.GetWaitingFor(), name)
			})
			var ring *pb.Gossip
			for ring == nil || ring.GetVersion() < 4 {
				s.report(&pb.Report{GossipVersion: version}) // it is there, and says nothing of the ring
				ring = s.wanted().GetGossip()
			}
			if took := time.Since(began); took < 3*deadline {
				t.Errorf("three steps took %s; each had %s", took, deadline)
			}
			if len(ring.GetKeys()) != 1 || slices.Equal(ring.GetKeys()[0], first.GetKeys()[0]) {
				t.Errorf("in the end the host is told %d keys", len(ring.GetKeys()))
			}
		})
	}
}

// TestHonestHostRollsAtOnce is the control: who confirms is not waited for.
func TestHonestHostRollsAtOnce(t *testing.T) {
	t.Parallel()
	w := start(t, func(_ *server.InitConfig, cfg *server.Config) { cfg.Deadline = time.Hour })
	h := w.rawHost("honest")
	s := w.sync(&h.pair)
	defer time.AfterFunc(patience, s.cancel).Stop()
	s.report(&pb.Report{})
	ring := s.wanted().GetGossip()
	w.rollKey()
	for ring.GetVersion() < 4 {
		ring = s.wanted().GetGossip()
		s.report(&pb.Report{GossipVersion: ring.GetVersion()})
	}
	until(t, "the roll is over", func() bool { return w.status().GetGossipRing().GetStep() == "idle" })
}
