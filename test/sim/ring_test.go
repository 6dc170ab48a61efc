package sim

import (
	"bytes"
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/trustcast/trustcast/agent"
	"github.com/trustcast/trustcast/internal/gossip"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

const serverMember = "10.0.0.1:7947"

// ringKeys are those in the server's record, the first encrypts.
func (w *world) ringKeys() [][]byte {
	w.t.Helper()
	var r struct {
		Value struct {
			Keys [][]byte `json:"gossip_keys"`
		}
	}
	if !readJSON(filepath.Join(w.cfg.DataDir, "state", "records", "control.json"), &r) || len(r.Value.Keys) == 0 {
		w.t.Fatal("the server's record has no ring")
	}
	return r.Value.Keys
}

// ringStep is where the server's record says that the ring stands.
func (w *world) ringStep() string {
	var r struct {
		Value struct {
			Step string `json:"gossip_step"`
		}
	}
	readJSON(filepath.Join(w.cfg.DataDir, "state", "records", "control.json"), &r)
	return r.Value.Step
}

// ringOf is the ring that a host keeps.
func (w *world) ringOf(name string) (version uint64, keys [][]byte) {
	var t struct {
		Gossip struct {
			Version uint64
			Keys    [][]byte
		}
	}
	readJSON(filepath.Join(w.host(name).dir, "state", "trusted.json"), &t)
	return t.Gossip.Version, t.Gossip.Keys
}

func (w *world) rollKey() {
	w.t.Helper()
	err := w.admin(func(ctx context.Context, c pb.AdminServiceClient) error {
		_, err := c.RollGossipKey(ctx, &pb.RollGossipKeyRequest{})
		return err
	})
	if err != nil {
		w.t.Fatalf("roll the gossip key: %v", err)
	}
}

func (w *world) removeHost(name string) {
	w.t.Helper()
	err := w.admin(func(ctx context.Context, c pb.AdminServiceClient) error {
		_, err := c.RemoveHost(ctx, &pb.RemoveHostRequest{Host: name})
		return err
	})
	if err != nil {
		w.t.Fatalf("remove %s: %v", name, err)
	}
}

// rolled: no roll is under way and there have been n; each has four steps.
func rolled(n uint64) func(*pb.Status) bool {
	return func(s *pb.Status) bool {
		return s.GetGossipRing().GetStep() == "idle" && s.GetGossipRing().GetVersion() == 4*n
	}
}

// meets: n hosts say that gossip reaches somebody.
func meets(n int) func(*pb.Status) bool {
	return count(n, func(_ *pb.Status, h *pb.Host) bool { return h.GetConnected() && h.GetGossip() == "ok" })
}

// spy is a member with nothing but a gossip key.
type spy struct {
	*gossip.Member
	run *process
}

func (w *world) spy(name, address string, key []byte) *spy {
	w.t.Helper()
	m, err := gossip.Start(gossip.Config{
		Name: name, Keys: [][]byte{key}, Peers: []string{serverMember}, Transport: w.gossip.Transport(address),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return &spy{m, start(m.Run)}
}

// reaches says whether the spy sees somebody within a while of simulated time.
func (s *spy) reaches(limit time.Duration) bool {
	return within(limit, func() bool { return s.Reached() })
}

// alone says whether it sees nobody any more; one that is cut off finds that out
// member by member.
func (s *spy) alone(limit time.Duration) bool {
	return within(limit, func() bool { return !s.Reached() })
}

func within(limit time.Duration, ok func() bool) bool {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(time.Second) {
		if ok() {
			return true
		}
	}
	return false
}

// TestGossipKeyRolls: 20 hosts, 10 % of packets lost. One is away meanwhile, and
// somebody with the old key claims to be it: the roll waits for neither. Then the
// old key opens nothing, and who missed the roll is back by itself.
func TestGossipKeyRolls(t *testing.T) {
	simulate(t, 20, agent.Layers{}, func(w *world) {
		w.gossip.SetLoss(0.1)
		w.until("all meet", 5*time.Minute, meets(20))
		old := w.ringKeys()[0]
		id := hostOf(w.status(), "host-3").GetId()
		w.cutLink("host-3", true)
		time.Sleep(2 * gone)
		feint := w.spy(id, "10.9.0.1:7947", old)
		defer func() { feint.run.end(t) }()
		w.until("the spy passes for host-3", 5*time.Minute, func(s *pb.Status) bool { return hostOf(s, "host-3").GetPresent() })
		if !feint.Reached() { // the negative control: the old key was good before
			t.Fatal("the old key reaches nobody before the roll: nothing is tested")
		}

		began := time.Now()
		w.rollKey()
		w.until("the key is replaced", 5*time.Minute, rolled(1))
		if took := time.Since(began); took > w.cfg.Deadline/2 {
			t.Errorf("the roll took %s: did it wait for who only seems present?", took)
		}
		if keys := w.ringKeys(); len(keys) != 1 || bytes.Equal(keys[0], old) {
			t.Errorf("the ring has %d keys, the first is the old one: %v", len(keys), bytes.Equal(keys[0], old))
		}
		w.until("the others still meet", time.Minute, meets(19))
		for _, name := range w.names() {
			if version, keys := w.ringOf(name); name != "host-3" && (version != 4 || len(keys) != 1) {
				t.Errorf("%s keeps version %d with %d keys", name, version, len(keys))
			}
		}

		w.until("host-3 is gone, whoever claims to be it", 5*time.Minute, func(s *pb.Status) bool { return !hostOf(s, "host-3").GetPresent() })
		if !feint.alone(10 * time.Minute) {
			t.Error("the old key still reaches somebody")
		}
		late, control := w.spy("late", "10.9.0.2:7947", old), w.spy("control", "10.9.0.3:7947", w.ringKeys()[0])
		defer func() { late.run.end(t); control.run.end(t) }()
		if late.reaches(2 * time.Minute) {
			t.Error("the old key is let in")
		}
		if !control.reaches(time.Minute) { // the negative control: the new one is
			t.Error("the new key is not let in: nothing is tested")
		}

		w.cutLink("host-3", false)
		w.until("host-3 meets the others again", 5*time.Minute, meets(20))
		if version, keys := w.ringOf("host-3"); version != 4 || len(keys) != 1 || bytes.Equal(keys[0], old) {
			t.Errorf("host-3 keeps version %d with %d keys", version, len(keys))
		}
		w.until("all hosts trust", 5*time.Minute, trusted(20))
	})
}

// TestRemovedHostLosesTheKey: `host rm`, and a token that replaces a host, roll
// the key by themselves; a host that is removed in a roll causes another.
func TestRemovedHostLosesTheKey(t *testing.T) {
	simulate(t, 5, agent.Layers{}, func(w *world) {
		w.until("all meet", 5*time.Minute, meets(5))
		old := w.ringKeys()[0]
		spy := w.spy("spy", "10.9.0.1:7947", old)
		defer func() { spy.run.end(t) }()
		if !spy.reaches(time.Minute) {
			t.Fatal("the key reaches nobody: nothing is tested")
		}
		w.stopAgent("host-4")
		w.removeHost("host-4")
		if step := w.status().GetGossipRing().GetStep(); step == "idle" {
			t.Error("removing a host rolls nothing")
		}
		w.removeHost("host-0") // it has, or is being sent, the key that comes
		w.stopAgent("host-0")
		w.until("the key is replaced twice", 5*time.Minute, rolled(2))
		w.until("the others meet", 5*time.Minute, meets(3))
		if !spy.alone(10 * time.Minute) {
			t.Error("the old key still reaches somebody")
		}

		token := w.createToken("host-1")
		w.drifted("host-1", true) // a machine that was set up anew
		w.stopAgent("host-1")
		w.joinAnew("host-1", token)
		w.until("the key is replaced once more", 5*time.Minute, rolled(3))
		w.until("all three meet", 5*time.Minute, meets(3))
	})
}

// TestServerRestartsInARoll: whatever step the record says, a start carries on.
func TestServerRestartsInARoll(t *testing.T) {
	for _, step := range []string{"installing", "using", "removing"} {
		t.Run(step, func(t *testing.T) {
			simulate(t, 5, agent.Layers{}, func(w *world) {
				w.until("all meet", 5*time.Minute, meets(5))
				w.mu.Lock()
				w.holdRing = step // host-0 was heard of a moment ago and is waited for
				w.mu.Unlock()
				w.rollKey()
				w.until("the roll waits for host-0", time.Minute, func(s *pb.Status) bool {
					ring := s.GetGossipRing()
					return ring.GetStep() == step && len(ring.GetWaitingFor()) == 1 && ring.GetWaitingFor()[0] == "host-0"
				})
				w.restartServer()
				if now := w.status().GetGossipRing().GetStep(); now != step {
					t.Fatalf("%s after a restart in %s", now, step)
				}
				time.Sleep(tick)
				if now := w.status().GetGossipRing().GetStep(); now != step {
					t.Errorf("the roll went on to %s before hosts had the time to say that they are there", now)
				}
				w.release()
				w.until("the key is replaced", 5*time.Minute, rolled(1))
				w.until("all meet again", 5*time.Minute, meets(5))
			})
		})
	}
}

// TestRollAndRotationTogether: neither holds the other.
func TestRollAndRotationTogether(t *testing.T) {
	simulate(t, 10, agent.Layers{}, func(w *world) {
		w.gossip.SetLoss(0.2)
		w.rotate()
		w.rollKey()
		w.until("the rotation ends", 10*time.Minute, idleAt(3))
		w.until("the key is replaced", 10*time.Minute, rolled(1))
		w.until("all hosts trust", 5*time.Minute, trusted(10))
		w.until("all meet", 5*time.Minute, meets(10))
	})
}

// TestRollWithoutStreams: hosts that only visit take part as well.
func TestRollWithoutStreams(t *testing.T) {
	for name, layers := range map[string]agent.Layers{
		"gossip": {NoStream: true, NoPoll: true},
		"poll":   {NoStream: true, NoGossip: true},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, 5, layers, func(w *world) {
				w.rollKey()
				w.until("the key is replaced", 10*time.Minute, rolled(1))
				for _, name := range w.names() {
					w.until(name+" has it", 5*time.Minute, func(*pb.Status) bool {
						version, keys := w.ringOf(name)
						return version == 4 && len(keys) == 1
					})
				}
			})
		})
	}
}

// TestGossipHeals: a host whose gossip was cut off for long is back by itself,
// and one that has another address now is accepted: the server sees it alive by
// gossip alone.
func TestGossipHeals(t *testing.T) {
	simulate(t, 5, agent.Layers{}, func(w *world) {
		w.until("all meet", 5*time.Minute, meets(5))
		w.rotate() // there must be something to check promises at
		w.until("the rotation ends", 10*time.Minute, idleAt(3))
		w.gossip.Partition([]string{w.host("host-2").gossip})
		w.until("host-2 is alone", 5*time.Minute, func(s *pb.Status) bool { return hostOf(s, "host-2").GetGossip() == "unreachable" })
		time.Sleep(2 * time.Minute)
		if now := hostOf(w.status(), "host-2").GetGossip(); now != "unreachable" {
			t.Fatalf("the partition has holes: gossip of host-2 is %s", now)
		}
		w.gossip.Partition()
		w.until("host-2 meets the others again", 5*time.Minute, meets(5))

		h := w.host("host-2")
		w.gossip.SetDown(h.gossip, true) // its leave is not heard
		w.stopAgent("host-2")
		h.gossip = "10.8.0.1:7947"
		w.startAgent("host-2")
		w.until("host-2 meets the others from its new address", 5*time.Minute, meets(5))
		seen := func() bool { // with its stream cut, only gossip can keep it present
			w.net.cut("host-2", true)
			defer w.net.cut("host-2", false)
			time.Sleep(2 * gone)
			return hostOf(w.status(), "host-2").GetPresent()
		}
		if !seen() {
			t.Error("the server does not see host-2 at its new address")
		}
		w.gossip.SetDown(h.gossip, true)
		time.Sleep(gone)
		if seen() { // the negative control
			t.Error("host-2 is present although nothing of it arrives")
		}
		w.gossip.SetDown(h.gossip, false)
	})
}
