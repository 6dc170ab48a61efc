package server

import (
	"crypto/x509"
	"math"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/trustcast/trustcast/certs"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server/authority"
	"github.com/trustcast/trustcast/server/fleet"
	"github.com/trustcast/trustcast/server/identity"
)

// status gathers what the parts know at one moment.
func (n *node) status() (*pb.Status, error) {
	state, err := n.authority.State()
	if err != nil {
		return nil, err
	}
	s := &pb.Status{
		Version: n.cfg.Version, FleetId: n.identity.FleetID(),
		Domain: n.names[0].String(), Aliases: n.site.Aliases,
		Started: timestamppb.New(n.started), Time: timestamppb.Now(),
		Generation: state.Bundle.Generation, Fingerprint: string(state.Bundle.Fingerprint()),
		Serving: &pb.Serving{
			Issuer: state.Issuer.Subject.CommonName, IssuerFingerprint: string(certs.FingerprintOf(state.Issuer)),
			CaNotAfter: timestamppb.New(state.Issuer.NotAfter), LeafNotAfter: timestamppb.New(state.LeafEnds),
			Predecessors: clampInt32(state.Predecessors),
		},
		RegistryAddress: n.listen.registry.Addr().String(),
		GrpcAddress:     n.listen.grpc.Addr().String(),
	}
	if n.gossip != nil {
		s.GossipAddress = n.gossip.Address()
	}
	hosts := n.identity.Hosts()
	s.Rotation = rotationStatus(state, hosts)
	verdicts := n.authority.Verdicts()
	for _, h := range hosts {
		s.Hosts = append(s.Hosts, hostStatus(h, n.fleet.State(h.ID), verdicts[h.ID]))
	}
	s.Strangers = n.strangers()
	s.GossipRing = n.ringStatus()
	s.Paused = pausedText(n.clockOff())
	s.Warnings = n.warnings(state, hosts)
	s.BackedUp, s.BackupLacks, err = n.backupStatus(state)
	return s, err
}

func rotationStatus(state authority.State, hosts []identity.Host) *pb.Rotation {
	r := state.Rotation
	out := &pb.Rotation{Phase: string(r.Phase), Number: r.Number, Rollback: r.Rollback, Mode: "planned", Frozen: state.Frozen}
	if r.Compromised {
		out.Mode = "compromised"
	}
	if r.Phase == authority.Idle && !r.Restored {
		return out
	}
	out.Started, out.Deadline = timeOrNil(r.Started), timeOrNil(r.Deadline)
	if state.Other != nil {
		out.Other = state.Other.Subject.CommonName
	}
	for _, w := range state.Waiting {
		out.WaitingFor = append(out.WaitingFor, &pb.WaitingFor{Host: w.Host, Reason: w.Reason, Advice: w.Advice})
	}
	name := map[string]string{}
	for _, h := range hosts {
		name[h.ID] = h.Name
	}
	for _, id := range r.Skipped {
		if name[id] != "" {
			out.Skipped = append(out.Skipped, name[id])
		}
	}
	return out
}

func hostStatus(h identity.Host, s fleet.State, v authority.Verdict) *pb.Host {
	out := &pb.Host{
		Id: h.ID, Name: h.Name, State: stateOf(s, v),
		Covered: s.Covered, Present: s.Present, Connected: s.Connected,
		Gossip: s.Details.Gossip, Version: s.Details.Version, Address: s.Details.Address,
		Enrolled: timestamppb.New(h.Enrolled), IdentityNotAfter: timestamppb.New(h.Ends),
		LastSeen: timeOrNil(latest(s.LastSign, s.LastSeen)),
		Repairs:  s.Details.Repairs, Contested: s.Details.Contested,
	}
	for _, p := range s.Details.Places {
		out.Places = append(out.Places, &pb.Place{Runtime: p.Runtime, Dir: p.Dir, Problem: p.Problem})
	}
	if s.Details.Timed {
		out.ClockSkew = durationpb.New(s.Details.Skew)
	}
	if e := s.Evidence; e != nil {
		out.Generation, out.Fingerprint = e.Generation, string(e.Fingerprint)
		out.Live, out.Probe = string(e.Live), string(e.Probe)
		out.Problem = e.Problem
	}
	if out.Problem == "" && out.State != "trusted" {
		out.Problem = v.Lack
	}
	return out
}

// stateOf puts a host into one word.
func stateOf(s fleet.State, v authority.Verdict) string {
	switch {
	case !s.Present:
		return "gone"
	case v.Complete:
		return "trusted"
	case s.Evidence == nil:
		return "pending"
	case v.Refused:
		return "refused"
	case s.Evidence.Problem != "":
		return "failed"
	default:
		return "pending"
	}
}

// permitted lists the names that a CA may sign for.
func permitted(c *x509.Certificate) []string {
	out := append([]string(nil), c.PermittedDNSDomains...)
	for _, r := range c.PermittedIPRanges {
		out = append(out, r.IP.String())
	}
	return out
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func timeOrNil(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func clampInt32(n int) int32 { return int32(min(n, math.MaxInt32)) } //nolint:gosec // bounded above, never negative
