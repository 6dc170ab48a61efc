package sim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/trustcast/trustcast/agent"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// TestThreeRotationsInARow: 50 hosts, 20 % of packets lost.
func TestThreeRotationsInARow(t *testing.T) {
	simulate(t, 50, agent.Layers{}, func(w *world) {
		w.gossip.SetLoss(0.2)
		for i := range 3 {
			w.rotate()
			generation := uint64(1 + 2*(i+1))
			w.until("the rotation ends", 10*time.Minute, idleAt(generation))
			w.until("all hosts trust", 5*time.Minute, trusted(50))
		}
	})
}

// TestAllAtOnce: 50 hosts, 20 % of packets lost, three rotations in a row. Each
// has the server restarted and a new host joining in another phase, while one
// host is down and comes back in the next rotation.
func TestAllAtOnce(t *testing.T) {
	simulate(t, 50, agent.Layers{}, func(w *world) {
		w.gossip.SetLoss(0.2)
		for i, phase := range []string{"staged", "switched", "retiring"} {
			away := fmt.Sprintf("host-%d", i)
			w.stopAgent(away)
			w.rotateWithin(30 * time.Second)
			w.reach(phase)
			w.restartServer()
			w.addHost(fmt.Sprintf("host-%d", 90+i), agent.Layers{})
			w.until("the rotation ends", 20*time.Minute, idleAt(uint64(3+2*i)))
			if made, err := w.pull(w.host(away)); err != nil || !made {
				w.t.Errorf("the sleeper %s cannot pull: %v", away, err)
			}
			w.startAgent(away)
			w.until("all hosts trust", 5*time.Minute, trusted(51+i))
		}
	})
}

// TestServerRestartInEachPhase: the record carries on, nobody is assumed absent.
func TestServerRestartInEachPhase(t *testing.T) {
	for _, phase := range []string{"staged", "switched", "retiring"} {
		t.Run(phase, func(t *testing.T) {
			simulate(t, 10, agent.Layers{}, func(w *world) {
				w.gossip.SetLoss(0.2)
				w.rotateAndHold(phase)
				w.restartServer()
				w.stays(phase)
				w.release()
				w.until("the rotation ends", 10*time.Minute, idleAt(3))
				w.until("all hosts trust", 5*time.Minute, trusted(10))
			})
		})
	}
}

// TestHostJoinsInEachPhase: a new host gets the bundle of the moment and is
// covered from its first complete evidence on. The phase is held by a host
// whose link is down.
func TestHostJoinsInEachPhase(t *testing.T) {
	for _, phase := range []string{"staged", "switched", "retiring"} {
		t.Run(phase, func(t *testing.T) {
			simulate(t, 5, agent.Layers{}, func(w *world) {
				w.rotateAndHold(phase)
				w.addHost("host-90", agent.Layers{})
				w.until("the new host trusts", time.Minute, func(s *pb.Status) bool {
					for _, h := range s.GetHosts() {
						if h.GetName() == "host-90" && h.GetState() == "trusted" {
							return true
						}
					}
					return false
				})
				w.stays(phase)
				w.release()
				w.until("the rotation ends", 10*time.Minute, idleAt(3))
				w.until("all hosts trust", 5*time.Minute, trusted(6))
			})
		})
	}
}

// TestAgentDownAndBack: a stopped host is waited for until gone and deadline,
// becomes a sleeper, pulls through the predecessors, and catches up.
func TestAgentDownAndBack(t *testing.T) {
	simulate(t, 10, agent.Layers{}, func(w *world) {
		w.stopAgent("host-3")
		down := time.Now()
		w.rotate()
		w.until("the rotation waits for host-3", time.Minute, func(s *pb.Status) bool {
			waits := s.GetRotation().GetWaitingFor()
			return s.GetRotation().GetPhase() == "staged" && len(waits) == 1 && waits[0].GetHost() == "host-3"
		})
		w.until("the rotation ends without it", 20*time.Minute, idleAt(3))
		if waited := time.Since(down); waited < 2*time.Minute {
			w.t.Errorf("host-3 was waited for only %s", waited)
		}
		if made, err := w.pull(w.host("host-3")); err != nil || !made {
			w.t.Errorf("the sleeper cannot pull: %v", err)
		}
		w.startAgent("host-3")
		w.until("it catches up", time.Minute, trusted(10))
	})
}

// TestBrokenHostHoldsTheSwitch: evidence is what is on disk and in effect, as
// re-read. A host whose directory cannot be written, or holds what makes Docker
// fail, holds the switch and is named; mended, it lets the rotation go on.
func TestBrokenHostHoldsTheSwitch(t *testing.T) {
	for what, c := range map[string]struct{ harm, mend func(h *host) error }{
		"a file in place of certs.d": {
			func(h *host) error {
				dir := filepath.Join(h.dir, "certs.d")
				return errors.Join(os.Rename(dir, dir+".old"), os.WriteFile(dir, nil, 0o644))
			},
			func(h *host) error { return os.Remove(filepath.Join(h.dir, "certs.d")) },
		},
		"a directory called x.crt": {
			func(h *host) error { return os.Mkdir(filepath.Join(filepath.Dir(h.caFile()), "x.crt"), 0o755) },
			func(h *host) error { return os.Remove(filepath.Join(filepath.Dir(h.caFile()), "x.crt")) },
		},
	} {
		t.Run(what, func(t *testing.T) {
			simulate(t, 3, agent.Layers{}, func(w *world) {
				w.drifted("host-1", true) // the promises leave out what others broke
				if err := c.harm(w.host("host-1")); err != nil {
					w.t.Fatal(err)
				}
				w.rotate()
				w.until("host-1 is waited for", time.Minute, func(s *pb.Status) bool {
					waits := s.GetRotation().GetWaitingFor()
					return s.GetRotation().GetPhase() == "staged" && len(waits) == 1 && waits[0].GetHost() == "host-1"
				})
				w.stays("staged")
				if err := c.mend(w.host("host-1")); err != nil {
					w.t.Fatal(err)
				}
				w.until("the rotation ends", 10*time.Minute, idleAt(3))
				w.until("all hosts trust", 5*time.Minute, trusted(3))
			})
		})
	}
}

// TestEndedCA: a server that was off until its CA had ended starts and replaces it
// by itself, without waiting: nothing verifies an ended CA.
func TestEndedCA(t *testing.T) {
	p := quick()
	p.caLife = 2 * time.Hour
	p.look = time.Minute
	simulateAt(t, p, 1, 2, agent.Layers{}, func(w *world) {
		for _, name := range w.names() {
			w.drifted(name, true) // nothing verifies an ended CA
		}
		w.server.end(w.t)
		time.Sleep(3 * time.Hour)
		w.startServer()
		w.until("the rotation ends", 10*time.Minute, idleAt(3))
		w.until("all hosts trust", 5*time.Minute, trusted(2))
		for _, name := range w.names() {
			w.drifted(name, false)
		}
	})
}

// TestForcedSwitch: a host that refuses cannot keep the others on a CA that ends.
// It is not covered from the switch on, until it is mended.
func TestForcedSwitch(t *testing.T) {
	p := quick()
	p.caLife = 10 * time.Hour
	// Hours pass: each second of them need not be looked at.
	p.tick, p.gone, p.gossip, p.poll, p.look = time.Minute, 6*time.Minute, 20*time.Second, 20*time.Second, time.Minute
	simulateAt(t, p, 1, 3, agent.Layers{}, func(w *world) {
		w.drifted("host-1", true)
		blocker := filepath.Join(filepath.Dir(w.host("host-1").caFile()), "x.crt")
		if err := os.Mkdir(blocker, 0o755); err != nil {
			w.t.Fatal(err)
		}
		w.until("the rotation by age waits for host-1", 8*time.Hour, func(s *pb.Status) bool {
			waits := s.GetRotation().GetWaitingFor()
			return s.GetRotation().GetPhase() == "staged" && len(waits) == 1 && waits[0].GetHost() == "host-1"
		})
		w.stays("staged")
		w.until("the rotation ends although host-1 refuses", 4*time.Hour, idleAt(3))
		for _, h := range w.status().GetHosts() {
			if h.GetCovered() == (h.GetName() == "host-1") {
				w.t.Errorf("%s is covered: %v", h.GetName(), h.GetCovered())
			}
		}
		if err := os.Remove(blocker); err != nil {
			w.t.Fatal(err)
		}
		w.until("all hosts trust", 5*time.Minute, trusted(3))
	})
}

// TestCompromise: what the stolen key signed counts nowhere after the switch, and a
// host that was away fails until it is back: that is not promised, and it is named.
func TestCompromise(t *testing.T) {
	simulate(t, 5, agent.Layers{}, func(w *world) {
		w.stopAgent("host-3")
		w.drifted("host-3", true)
		w.compromise()
		w.until("the rotation ends", 5*time.Minute, idleAt(3))
		if made, err := w.pull(w.host("host-3")); made && err == nil {
			w.t.Error("a host that has only the stolen CA still pulls: somebody signed with it")
		}
		w.startAgent("host-3")
		w.until("all hosts trust", 5*time.Minute, trusted(5))
		w.drifted("host-3", false)
		if made, err := w.pull(w.host("host-3")); !made || err != nil {
			w.t.Errorf("host-3 is back and does not pull: made %v, %v", made, err)
		}
	})
}

// TestRollbackAfterTheSwitch: the old CA serves again and nobody notices.
func TestRollbackAfterTheSwitch(t *testing.T) {
	simulate(t, 5, agent.Layers{}, func(w *world) {
		before := w.status().GetServing().GetIssuer()
		w.rotateAndHold("switched")
		w.rollback()
		w.release()
		w.until("the rotation ends", 10*time.Minute, idleAt(3))
		w.until("all hosts trust", 5*time.Minute, trusted(5))
		if now := w.status().GetServing().GetIssuer(); now != before {
			w.t.Errorf("served by %s, was %s", now, before)
		}
	})
}

// TestEachLayerAlone: stream, gossip and poll each bring a rotation to its end
// with the other two off.
func TestEachLayerAlone(t *testing.T) {
	for name, layers := range map[string]agent.Layers{
		"stream": {NoGossip: true, NoPoll: true},
		"gossip": {NoStream: true, NoPoll: true},
		"poll":   {NoStream: true, NoGossip: true},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, 10, layers, func(w *world) {
				w.rotate()
				w.until("the rotation ends", 10*time.Minute, idleAt(3))
				w.until("all hosts have the bundle", 5*time.Minute, has(10))
			})
		})
	}
}

// TestRestartWithAllLinksDown: a server that restarts in the staged phase and
// hears nobody does not switch before gone-after, however short the deadline.
func TestRestartWithAllLinksDown(t *testing.T) {
	simulate(t, 5, agent.Layers{}, func(w *world) {
		w.cutLink("host-0", true) // holds the staged phase
		w.rotateWithin(5 * time.Second)
		for i := range 5 {
			w.cutLink(fmt.Sprintf("host-%d", i), true)
		}
		time.Sleep(gone * 3 / 4) // past the deadline, but nobody is gone yet
		w.restartServer()
		restarted := time.Now()
		for time.Since(restarted) < gone-2*time.Second {
			if phase := w.status().GetRotation().GetPhase(); phase != "staged" {
				w.t.Fatalf("%s only %s after the restart", phase, time.Since(restarted))
			}
			time.Sleep(time.Second)
		}
		for i := range 5 {
			w.cutLink(fmt.Sprintf("host-%d", i), false)
		}
		w.until("the rotation ends", 10*time.Minute, idleAt(3))
		w.until("all hosts trust", 5*time.Minute, trusted(5))
	})
}
