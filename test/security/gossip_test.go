package security

import (
	"math"
	"testing"
	"time"

	"github.com/trustcast/trustcast/agent"
	"github.com/trustcast/trustcast/internal/gossip"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server"
)

// lies is one round of everything that a holder of the gossip key can claim.
func (f *forger) lies(round int, to string, ids []string) {
	hint := gossip.Hint{Generation: math.MaxUint64, Revision: math.MaxUint64 - uint64(round%2)}.Encode()
	f.alive(to, gossip.ServerName, serverMember, hint)
	f.alive(to, gossip.ServerName, "10.9.9.9:7947", hint)
	f.alive(to, "impostor", "10.9.9.9:7947", hint)
	f.send(to, userMessage, []byte("install this"))
	f.send(to, userMessage, hint)
	for _, id := range ids {
		f.alive(to, id, "10.9.9.9:7947", hint)
		f.suspect(to, id, "impostor")
		f.dead(to, id, "impostor")
		f.dead(to, id, id)
	}
	f.dead(to, gossip.ServerName, gossip.ServerName)
}

// TestGossipInstallsNothing: minutes of lies wake agents that have no stream,
// at a bounded rate, and those with one not at all; nothing changes anywhere.
func TestGossipInstallsNothing(t *testing.T) {
	simulate(t, func(w *world) {
		stream := w.join("stream")
		gossipOnly := w.join("gossip-only", func(cfg *agent.Config) {
			cfg.Layers = agent.Layers{NoStream: true, NoPoll: true}
		})
		raw := w.rawHost("raw")
		liar := w.forger(raw.gossip.GetKeys()[0])
		beforeStream, beforeGossip := stream.trust(), gossipOnly.trust()
		before := w.status()
		dials := func() (int, int) {
			return w.wire.dialled("stream", serverAddress), w.wire.dialled("gossip-only", serverAddress)
		}
		ids := []string{w.host("stream").GetId(), w.host("gossip-only").GetId(), raw.id, "00112233445566778899aabbccddeeff"}
		streamDials, gossipDials := dials()

		const minutes, every = 3, 500 * time.Millisecond
		for round := range int(minutes * time.Minute / every) {
			for _, to := range []string{serverMember, stream.member, gossipOnly.member} {
				liar.lies(round, to, ids)
			}
			time.Sleep(every)
		}

		a, b := dials()
		if a != streamDials {
			t.Errorf("the agent with a stream dialled %d times more", a-streamDials)
		}
		woken, limit := b-gossipDials, minutes*60+3 // a visit a second, and three at once
		t.Logf("%d visits in %d minutes", woken, minutes)
		if woken == 0 {
			t.Error("nobody was woken: the lies were not heard")
		}
		if woken > limit {
			t.Errorf("the agent without a stream dialled %d times, want at most %d", woken, limit)
		}
		same(t, beforeStream, stream.trust())
		same(t, beforeGossip, gossipOnly.trust())
		after := w.status()
		if before.GetGeneration() != after.GetGeneration() || before.GetFingerprint() != after.GetFingerprint() || len(before.GetHosts()) != len(after.GetHosts()) {
			t.Errorf("the server has generation %d and %d hosts", after.GetGeneration(), len(after.GetHosts()))
		}
		for _, m := range []*machine{stream, gossipOnly} {
			if s := m.status(); s.Generation != 1 {
				t.Errorf("%s trusts generation %d", s.Name, s.Generation)
			}
		}
		// The twin: a real change, with all that still in everybody's tables.
		w.rotate(time.Second)
		until(t, "the agent with a stream follows", func() bool { return stream.status().Generation == 2 })
	}, func(_ *server.InitConfig, cfg *server.Config) { cfg.GoneAfter = time.Minute })
}

// TestForgedDeathReleasesNobody: whom gossip calls dead is waited for as long as
// its stream is open, long after gone-after and deadline.
func TestForgedDeathReleasesNobody(t *testing.T) {
	const gone = time.Minute
	simulate(t, func(w *world) {
		other := w.join("other")
		victim := w.rawHost("victim")
		s := w.sync(&victim.pair)
		s.report(&pb.Report{})
		s.report(complete(t, s.wanted()))
		until(t, "the victim is covered", func() bool { return w.host("victim").GetCovered() })
		go func() { // it reads, but does not report
			for {
				if _, err := s.Recv(); err != nil {
					return
				}
			}
		}()

		w.rotate(10 * time.Second)
		liar := w.forger(victim.gossip.GetKeys()[0])
		waits := func() bool {
			for _, h := range w.status().GetRotation().GetWaitingFor() {
				if h.GetHost() == "victim" {
					return true
				}
			}
			return false
		}
		for range int(2 * gone / time.Second) {
			for _, to := range []string{serverMember, other.member} {
				liar.alive(to, victim.id, "10.9.9.9:7947", nil)
				liar.suspect(to, victim.id, "impostor")
				liar.dead(to, victim.id, "impostor")
				liar.dead(to, victim.id, victim.id)
			}
			time.Sleep(time.Second)
			if phase := w.status().GetRotation().GetPhase(); phase != "staged" || !waits() {
				t.Fatalf("%s, and the victim is waited for: %v", phase, waits())
			}
		}
		// The twin: a host that is really away is released after gone-after.
		s.cancel()
		time.Sleep(gone - 10*time.Second)
		if phase := w.status().GetRotation().GetPhase(); phase != "staged" {
			t.Errorf("%s before gone-after", phase)
		}
		until(t, "the rotation goes on without it", func() bool { return w.status().GetRotation().GetPhase() != "staged" })
	}, func(_ *server.InitConfig, cfg *server.Config) { cfg.GoneAfter = gone })
}
