package server

import (
	"context"
	"math/rand/v2"
	"time"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server/identity"
)

// ringLook is how often a roll of the gossip key looks at its clocks: hosts
// leave, and a step's time is up, without a report.
const ringLook = time.Second

// keepRing takes each step of a roll of the gossip key that is due until ctx
// ends. What fails is logged once and tried again.
func (n *node) keepRing(ctx context.Context) error {
	complaint := ""
	for {
		reported := n.reported.next()
		err := n.stepRing(time.Now())
		if err != nil && err.Error() != complaint {
			n.log.Error("the gossip key's roll is stuck; trying again", "err", err)
		}
		if complaint = ""; err != nil {
			complaint = err.Error()
		}
		var look <-chan time.Time
		if err != nil || n.identity.Ring().Step() != identity.RingIdle {
			look = time.After(min(ringLook, n.cfg.Tick/2))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-reported:
		case <-look:
		}
	}
}

// stepRing does what is due: another roll when one was asked for, or the next
// step. Then it sees to it that everybody has the ring of the record.
func (n *node) stepRing(now time.Time) error {
	n.ringMu.Lock()
	defer n.ringMu.Unlock()
	ring := n.identity.Ring()
	var err error
	switch {
	case ring.Step() != identity.RingIdle:
		if now.Sub(n.started) >= 2*n.cfg.Tick { // hosts had the time to say that they are there
			ring, err = n.identity.AdvanceRing(ring.Version, n.ringTaken(ring, now), n.cfg.Deadline, now)
		}
	case ring.Again:
		ring, err = n.identity.RollRing(now)
	}
	if err != nil {
		return err
	}
	return n.useRing(ring, "removal")
}

// rollGossip replaces the gossip key. With a roll under way it only notes,
// durably, that another one follows it. The caller is named in the history.
func (n *node) rollGossip(by string) (version uint64, err error) {
	n.ringMu.Lock()
	defer n.ringMu.Unlock()
	ring, err := n.identity.RollRing(time.Now())
	if err != nil {
		return 0, err
	}
	defer n.reported.beat() // keepRing looks more often from now on
	return ring.Version, n.useRing(ring, by)
}

// useRing has the server's own member use a recorded ring, and everybody told.
// A crash before that is made good at the next start, see ringUsed. The caller
// holds ringMu.
func (n *node) useRing(ring identity.Ring, by string) error {
	if ring.Version == n.ringUsed {
		return nil
	}
	if n.gossip != nil {
		if err := n.gossip.SetKeys(ring.Keys); err != nil {
			return err
		}
	}
	detail := ""
	if ring.Step() == identity.RingInstalling {
		detail = "gossip key replaced"
	}
	if err := n.authority.Touch(by, detail); err != nil {
		return err
	}
	n.ringUsed = ring.Version
	n.log.Info("gossip ring", "step", ring.Step(), "version", ring.Version)
	return nil
}

// ringTaken: no connected host lacks a ring. Each report asks, so one host that lacks
// it, drawn at random, is looked at first, and all of them when it does no more. The
// caller holds ringMu.
func (n *node) ringTaken(ring identity.Ring, now time.Time) bool {
	if n.ringAwaits != "" && n.ringLacks(n.ringAwaits, ring, now) {
		return false
	}
	var lacking []string
	for _, h := range n.identity.Hosts() {
		if n.ringLacks(h.ID, ring, now) {
			lacking = append(lacking, h.ID)
		}
	}
	if n.ringAwaits = ""; len(lacking) > 0 {
		n.ringAwaits = lacking[rand.IntN(len(lacking))] //nolint:gosec // spreads work, keeps no secret
	}
	return len(lacking) == 0
}

// ringLacks: a host is waited for. It counts while its stream is open or its last
// report is younger than two ticks: whoever only seems present by gossip, as any
// holder of the old key can, is not waited for.
func (n *node) ringLacks(id string, ring identity.Ring, now time.Time) bool {
	s := n.fleet.State(id)
	return (s.Connected || n.heard(s, now)) && s.Details.GossipVersion != ring.Version
}

// ringWaiting names the connected hosts that have not acknowledged a ring.
func (n *node) ringWaiting(ring identity.Ring, now time.Time) []string {
	if ring.Step() == identity.RingIdle {
		return nil
	}
	var names []string
	for _, h := range n.identity.Hosts() {
		if n.ringLacks(h.ID, ring, now) {
			names = append(names, h.Name)
		}
	}
	return names
}

func (n *node) ringStatus() *pb.GossipRing {
	ring := n.identity.Ring()
	return &pb.GossipRing{Version: ring.Version, Step: string(ring.Step()), WaitingFor: n.ringWaiting(ring, time.Now())}
}
