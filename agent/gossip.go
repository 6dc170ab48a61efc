package agent

import (
	"github.com/trustcast/trustcast/internal/gossip"
)

// startGossip becomes a member. A port that is taken is a warning: the stream
// carries everything.
func (a *agent) startGossip() {
	if a.cfg.GossipListen == off || a.cfg.Layers.NoGossip || len(a.enrolment.Gossip.Keys) == 0 {
		return
	}
	m, err := gossip.Start(gossip.Config{
		Name: a.enrolment.HostID, Listen: a.cfg.GossipListen,
		Keys: a.enrolment.Gossip.Keys, Peers: a.enrolment.Gossip.Peers,
		Changed: a.link.hint, ProbeEvery: a.cfg.GossipEvery,
		Transport: a.cfg.GossipTransport, Log: a.log,
	})
	if err != nil {
		a.log.Warn("gossip is off: this host is reached by stream and poll alone", "err", err)
		return
	}
	a.gossip = m
}

// useGossip takes the ring and the peers that the server names.
func (a *agent) useGossip(r ring) {
	if a.gossip == nil || len(r.Keys) == 0 {
		return
	}
	a.gossip.SetPeers(r.Peers)
	if err := a.gossip.SetKeys(r.Keys); err != nil {
		a.log.Warn("gossip keys not taken", "err", err)
	}
}

func (a *agent) gossipState() string {
	switch {
	case a.gossip == nil:
		return off
	case a.gossip.Reached():
		return "ok"
	default:
		return "unreachable"
	}
}
