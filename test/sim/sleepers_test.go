package sim

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/trustcast/trustcast/agent"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// TestSleepers: hosts that are switched off through one, two and five rotations
// pull with what they have when they are back, and get the newest bundle by
// themselves; one of them after its identity's end.
func TestSleepers(t *testing.T) {
	p := quick()
	p.identityLife = 3 * time.Hour
	p.gossip, p.look = 30*time.Second, 3*time.Minute
	simulateAt(t, p, seed(), 6, agent.Layers{}, func(w *world) {
		slept := map[string]int{"host-1": 5, "host-2": 2, "host-3": 1}
		for i := range 5 {
			for name, n := range slept {
				if n == 5-i {
					w.stopAgent(name)
				}
			}
			w.rotateWithin(30 * time.Second)
			w.until("the rotation ends without the sleepers", 20*time.Minute, idleAt(uint64(3+2*i)))
			time.Sleep(p.identityLife / 4) // the first sleeper's identity ends meanwhile, the last one's does not
		}
		ended := 0
		for name, n := range slept {
			h := w.host(name)
			if made, err := w.pull(h); !made || err != nil {
				t.Errorf("%s slept through %d rotations and cannot pull: %v", name, n, err)
			}
			if !identityEnds(t, h).After(time.Now()) {
				ended++
			}
			w.startAgent(name)
		}
		if ended == 0 || ended == len(slept) {
			t.Errorf("%d of %d identities have ended: the test shows one case alone", ended, len(slept))
		}
		w.until("all hosts trust", 5*time.Minute, trusted(6))
		for name := range slept {
			if !identityEnds(t, w.host(name)).After(time.Now()) {
				t.Errorf("%s is back with an identity that has ended", name)
			}
		}
	})
}

// TestSleeperOfAnEndedCA is what the predecessors cannot do: a host that trusts
// a CA that has ended does not pull, until its agent brings the newest.
func TestSleeperOfAnEndedCA(t *testing.T) {
	p := quick()
	p.caLife = 6 * time.Hour
	p.gossip, p.look = 30*time.Second, 3*time.Minute
	simulateAt(t, p, seed(), 3, agent.Layers{}, func(w *world) {
		w.stopAgent("host-1")
		time.Sleep(p.caLife + time.Hour) // rotations by age go on without it
		h := w.host("host-1")
		if made, err := w.pull(h); !made || err == nil {
			t.Errorf("a host with an ended CA pulls: handshake %v, %v", made, err)
		}
		w.startAgent("host-1")
		w.until("all hosts trust", 10*time.Minute, trusted(3))
		if made, err := w.pull(h); !made || err != nil {
			t.Errorf("it is back and cannot pull: %v", err)
		}
	})
}

// TestReinstalledHost: a token for a name replaces the host's old ID, in the
// middle of a rotation that waits for the old one.
func TestReinstalledHost(t *testing.T) {
	simulateAt(t, quick(), seed(), 4, agent.Layers{}, func(w *world) {
		w.rotateAndHold("staged") // by host-0
		old := hostOf(w.status(), "host-1").GetId()
		w.drifted("host-1", true) // its disk is wiped
		w.stopAgent("host-1")
		w.joinAnew("host-1", w.createToken("host-1"))
		w.until("it is trusted under a new ID", 2*time.Minute, func(s *pb.Status) bool {
			h := hostOf(s, "host-1")
			return h.GetState() == "trusted" && h.GetId() != old
		})
		w.drifted("host-1", false)
		w.release()
		w.until("the rotation ends", 10*time.Minute, idleAt(3))
		w.until("all hosts trust", 5*time.Minute, trusted(4))
		if n := len(w.status().GetHosts()); n != 4 {
			t.Errorf("%d hosts: the old ID is still there", n)
		}
	})
}

// TestClonedHost: a second machine with a host's state is refused and named, the
// first goes on through a rotation; without the first it is let in.
func TestClonedHost(t *testing.T) {
	simulateAt(t, quick(), seed(), 3, agent.Layers{}, func(w *world) {
		if s := w.status(); named(s, "host-1") {
			t.Errorf("a clone is named and there is none: %q", s.GetWarnings())
		}
		twin := w.cloneOf("host-1", 0)
		w.until("the clone is named", time.Minute, func(s *pb.Status) bool { return named(s, "host-1") })
		w.rotate()
		w.until("the rotation ends", 10*time.Minute, idleAt(3))
		w.until("all hosts trust", 5*time.Minute, trusted(3))
		if h := hostOf(w.status(), "host-1"); !h.GetConnected() {
			t.Errorf("the first is hurt: %v", h)
		}
		twin.stop()
		w.until("nobody is named any more", 2*time.Minute, func(s *pb.Status) bool { return !named(s, "host-1") })
		w.stopAgent("host-1")
		w.cloneOf("host-1", 1) // the twin of the test: who is alone is let in
		w.until("it is connected", time.Minute, func(s *pb.Status) bool { return hostOf(s, "host-1").GetConnected() })
	})
}

// TestHostWithANewAddress: gossip accepts a host that comes back elsewhere.
func TestHostWithANewAddress(t *testing.T) {
	simulateAt(t, quick(), seed(), 3, agent.Layers{NoStream: true, NoPoll: true}, func(w *world) {
		w.stopAgent("host-1")
		h := w.host("host-1")
		h.gossip = "10.8.0.1:7947"
		time.Sleep(15 * time.Second) // dead names are given out again after ten
		w.startAgent("host-1")
		w.rotate() // reaches it by gossip alone
		w.until("the rotation ends", 10*time.Minute, idleAt(3))
		w.until("all hosts have the bundle", 5*time.Minute, has(3))
	})
}

func named(s *pb.Status, name string) bool {
	for _, text := range s.GetWarnings() {
		if strings.HasPrefix(text, fmt.Sprintf("host %s is cloned", name)) {
			return true
		}
	}
	return false
}
