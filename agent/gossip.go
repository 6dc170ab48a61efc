package agent

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/trustcast/trustcast/internal/gossip"
)

// startGossip becomes a member. A port that is taken is a warning: the stream
// carries everything.
func (a *membership) startGossip() {
	if a.cfg.GossipListen == off || a.cfg.Layers.NoGossip || len(a.ring.Keys) == 0 {
		return
	}
	m, err := gossip.Start(gossip.Config{
		Name: a.enrolment.HostID, Listen: a.cfg.GossipListen,
		Keys: a.ring.Keys, Peers: a.ring.Peers,
		Changed: a.link.hint, ProbeEvery: a.cfg.GossipEvery,
		Transport: a.cfg.GossipTransport, Log: a.log,
	})
	if err != nil {
		text := "gossip is off: this host is reached by stream and poll alone"
		if errors.Is(err, syscall.EADDRINUSE) {
			text += "; the server on this machine may have the port, then give another one by --gossip-listen, which `trustcast-agent doctor` names"
		}
		a.log.Warn(text, "err", err)
		a.gossipProblem = fmt.Sprintf("%s cannot be listened on (%v)", a.cfg.GossipListen, err)
		if errors.Is(err, syscall.EADDRINUSE) {
			a.gossipProblem = a.cfg.GossipListen + " is taken by another program"
		}
		return
	}
	a.gossip = m
}

// useGossip takes the ring and the peers that the server names, which is
// acknowledged from then on, also with gossip off.
func (a *membership) useGossip(r ring) {
	if len(r.Keys) == 0 {
		return
	}
	if a.gossip != nil {
		a.gossip.SetPeers(r.Peers)
		if err := a.gossip.SetKeys(r.Keys); err != nil {
			a.log.Warn("gossip keys not taken", "err", err)
			return
		}
	}
	if r.Version != a.ring.Version {
		a.log.Info("gossip ring taken", "version", r.Version)
	}
	a.ring = r
}

func (a *membership) gossipState() string {
	switch {
	case a.gossip == nil:
		return off
	case a.gossip.Reached():
		return "ok"
	default:
		return "unreachable"
	}
}
